-- answers: how long DNS answers take on each day and transport: the median and the slowest tenth, twentieth and hundredth
-- keys: day, side, transport, latency_us
-- sum: responses
-- time: day
-- every: 10 minutes
SELECT day,
       side,
       transport,
       -- A histogram with two digits of each time: 1,234 counts as 1,200. Whole numbers alone, so that every engine
       -- puts a time into the same bucket; a logarithm would not.
       CASE
           WHEN latency_us < 100 THEN latency_us
           WHEN latency_us < 1000 THEN latency_us - latency_us % 10
           WHEN latency_us < 10000 THEN latency_us - latency_us % 100
           WHEN latency_us < 100000 THEN latency_us - latency_us % 1000
           WHEN latency_us < 1000000 THEN latency_us - latency_us % 10000
           WHEN latency_us < 10000000 THEN latency_us - latency_us % 100000
           ELSE latency_us - latency_us % 1000000
       END AS latency_us,
       count(*) AS responses
FROM (
    SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
           lower(split_part(coalesce(message_type, 'TOOL_'), '_', 1)) AS side,
           coalesce(transport, '') AS transport,
           latency_us
    FROM silver.dns
    WHERE qr AND latency_us >= 0
) AS answered
GROUP BY 1, 2, 3, 4;

WITH ranked AS (
    SELECT day,
           side,
           transport,
           latency_us,
           sum(responses) OVER (
               PARTITION BY day, side, transport ORDER BY latency_us
               ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
           ) AS up_to_here,
           sum(responses) OVER (PARTITION BY day, side, transport) AS responses
    FROM merged
)
SELECT day,
       side,
       transport,
       max(responses) AS responses,
       -- The first bucket that reaches the share: up to a tenth below the time itself.
       min(CASE WHEN up_to_here * 100 >= responses * 50 THEN latency_us END) AS p50_us,
       min(CASE WHEN up_to_here * 100 >= responses * 90 THEN latency_us END) AS p90_us,
       min(CASE WHEN up_to_here * 100 >= responses * 95 THEN latency_us END) AS p95_us,
       min(CASE WHEN up_to_here * 100 >= responses * 99 THEN latency_us END) AS p99_us,
       max(latency_us) AS slowest_us
FROM ranked
GROUP BY day, side, transport
ORDER BY day DESC, responses DESC, side, transport
