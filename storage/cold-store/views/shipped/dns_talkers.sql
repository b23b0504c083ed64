-- answers: the clients that ask most on each day, for how many names and domains, and how often in vain
-- keys: day, side, client
-- sum: queries, responses, nxdomain_responses, bytes
-- distinct: names, domains
-- time: day
-- every: 10 minutes
SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
       lower(split_part(coalesce(message_type, 'TOOL_'), '_', 1)) AS side,
       client_ip AS client,
       count(*) FILTER (WHERE NOT qr) AS queries,
       count(*) FILTER (WHERE qr) AS responses,
       count(*) FILTER (WHERE qr AND rcode = 'NXDOMAIN') AS nxdomain_responses,
       sum(coalesce(size_bytes, 0)) AS bytes,
       sketch(qname) AS names,
       sketch(registrable_domain) AS domains
FROM silver.dns
WHERE client_ip IS NOT NULL
GROUP BY 1, 2, 3;

SELECT day,
       side,
       client,
       greatest(queries, responses) AS lookups,
       bytes,
       estimate(names) AS names,
       estimate(domains) AS domains,
       -- Many names that do not exist: a wrong search list, a scan, or a program that looks for its master.
       CASE WHEN responses > 0 THEN round(1000 * CAST(nxdomain_responses AS DOUBLE) / responses) / 10 END AS nxdomain_percent
FROM merged
ORDER BY day DESC, lookups DESC, side, client
