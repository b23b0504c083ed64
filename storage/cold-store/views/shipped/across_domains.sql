-- answers: hosts that papers link, articles stand on and name servers are asked for: what at least two of them know
-- keys: host
-- sum: queries, responses
-- distinct: papers, repositories, articles, clients
-- min: first_paper
-- max: last_lookup_at, last_article_at
-- every: 1 hours
SELECT CASE WHEN host LIKE 'www.%' THEN substr(host, 5) ELSE host END AS host,
       sketch(arxiv_id) AS papers,
       min(arxiv_id) AS first_paper,
       -- Repositories that these papers link.
       sketch(repository) AS repositories,
       sketch(article_id) AS articles,
       max(published_at) AS last_article_at,
       count(*) FILTER (WHERE NOT is_response) AS queries,
       count(*) FILTER (WHERE is_response) AS responses,
       sketch(client_ip) AS clients,
       max(looked_up_at) AS last_lookup_at
FROM (
    SELECT lower(split_part(split_part(split_part(address, '//', 2), '/', 1), ':', 1)) AS host,
           arxiv_id,
           repository,
           article_id,
           published_at,
           CAST(NULL AS BOOLEAN) AS is_response,
           CAST(NULL AS STRING) AS client_ip,
           CAST(NULL AS TIMESTAMP) AS looked_up_at
    FROM (
        SELECT arxiv_id,
               -- The first alone: more than one is rare, and a second list would multiply the rows.
               nullif(split_part(array_join(code_repositories, ' '), ' ', 1), '') AS repository,
               CAST(NULL AS STRING) AS article_id,
               CAST(NULL AS TIMESTAMP) AS published_at,
               unnest(links) AS address
        FROM silver.arxiv
        WHERE deleted IS NOT TRUE
        UNION ALL
        SELECT CAST(NULL AS STRING) AS arxiv_id,
               CAST(NULL AS STRING) AS repository,
               article_id,
               event_time AS published_at,
               coalesce(canonical_url, link) AS address
        FROM silver.news
    ) AS linked
    UNION ALL
    SELECT qname AS host,
           CAST(NULL AS STRING) AS arxiv_id,
           CAST(NULL AS STRING) AS repository,
           CAST(NULL AS STRING) AS article_id,
           CAST(NULL AS TIMESTAMP) AS published_at,
           qr AS is_response,
           client_ip,
           event_time AS looked_up_at
    FROM silver.dns
    -- Longer names are mostly made by machines, and no link has them.
    WHERE label_count BETWEEN 2 AND 4
) AS known
WHERE host LIKE '%.%'
GROUP BY 1;

WITH counted AS (
    SELECT host,
           estimate(papers) AS papers,
           first_paper,
           estimate(repositories) AS repositories,
           estimate(articles) AS articles,
           last_article_at,
           greatest(queries, responses) AS lookups,
           estimate(clients) AS clients,
           last_lookup_at
    FROM merged
)
SELECT *
FROM counted
WHERE CASE WHEN papers > 0 THEN 1 ELSE 0 END + CASE WHEN articles > 0 THEN 1 ELSE 0 END
    + CASE WHEN lookups > 0 THEN 1 ELSE 0 END >= 2
ORDER BY papers DESC, articles DESC, lookups DESC, host
