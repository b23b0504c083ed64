-- answers: the domains that were seen for the first time, the newest first, with how often and by whom they were asked for since
-- keys: domain
-- min: first_seen
-- max: last_seen
-- sum: queries, responses
-- distinct: clients, names
-- every: 10 minutes
SELECT registrable_domain AS domain,
       min(event_time) AS first_seen,
       max(event_time) AS last_seen,
       count(*) FILTER (WHERE NOT qr) AS queries,
       count(*) FILTER (WHERE qr) AS responses,
       sketch(client_ip) AS clients,
       sketch(qname) AS names
FROM silver.dns
WHERE registrable_domain IS NOT NULL
GROUP BY 1;

SELECT first_seen,
       domain,
       last_seen,
       greatest(queries, responses) AS lookups,
       estimate(clients) AS clients,
       estimate(names) AS names
FROM merged
ORDER BY first_seen DESC, domain
