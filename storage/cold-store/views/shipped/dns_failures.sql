-- answers: the share of responses per hour that say NXDOMAIN, SERVFAIL or REFUSED, and for how many domains and clients
-- keys: hour, side
-- sum: responses, nxdomain_responses, servfail_responses, refused_responses
-- distinct: nxdomain_domains, nxdomain_clients
-- time: hour
-- every: 10 minutes
SELECT date_trunc('hour', event_time) AS hour,
       lower(split_part(coalesce(message_type, 'TOOL_'), '_', 1)) AS side,
       count(*) AS responses,
       count(*) FILTER (WHERE rcode = 'NXDOMAIN') AS nxdomain_responses,
       count(*) FILTER (WHERE rcode = 'SERVFAIL') AS servfail_responses,
       count(*) FILTER (WHERE rcode = 'REFUSED') AS refused_responses,
       sketch(CASE WHEN rcode = 'NXDOMAIN' THEN coalesce(registrable_domain, qname) END) AS nxdomain_domains,
       sketch(CASE WHEN rcode = 'NXDOMAIN' THEN client_ip END) AS nxdomain_clients
FROM silver.dns
WHERE qr AND opcode = 'QUERY'
GROUP BY 1, 2;

SELECT hour,
       side,
       responses,
       nxdomain_responses,
       round(1000 * CAST(nxdomain_responses AS DOUBLE) / responses) / 10 AS nxdomain_percent,
       round(1000 * CAST(servfail_responses AS DOUBLE) / responses) / 10 AS servfail_percent,
       round(1000 * CAST(refused_responses AS DOUBLE) / responses) / 10 AS refused_percent,
       estimate(nxdomain_domains) AS nxdomain_domains,
       estimate(nxdomain_clients) AS nxdomain_clients
FROM merged
ORDER BY hour DESC, responses DESC, side
