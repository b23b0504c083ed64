-- answers: the domains that are looked up most on each day, by how many clients, and how often they do not exist
-- keys: day, side, domain
-- sum: queries, responses, nxdomain_responses
-- distinct: clients, names
-- time: day
-- every: 10 minutes
SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
       -- Where it was seen: `client` and `resolver` of dnstap are two sides of the same lookup, `tool` is a capture.
       lower(split_part(coalesce(message_type, 'TOOL_'), '_', 1)) AS side,
       coalesce(registrable_domain, qname) AS domain,
       count(*) FILTER (WHERE NOT qr) AS queries,
       count(*) FILTER (WHERE qr) AS responses,
       count(*) FILTER (WHERE qr AND rcode = 'NXDOMAIN') AS nxdomain_responses,
       sketch(client_ip) AS clients,
       sketch(qname) AS names
FROM silver.dns
WHERE qname IS NOT NULL
GROUP BY 1, 2, 3;

SELECT day,
       side,
       domain,
       -- A capture may have lost the one or the other.
       greatest(queries, responses) AS lookups,
       estimate(clients) AS clients,
       estimate(names) AS names,
       CASE WHEN responses > 0 THEN round(1000 * CAST(nxdomain_responses AS DOUBLE) / responses) / 10 END AS nxdomain_percent
FROM merged
ORDER BY day DESC, lookups DESC, side, domain
