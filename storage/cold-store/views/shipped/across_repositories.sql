-- answers: repositories that papers link, articles name, GitHub's events touch or name servers are asked for: what at least two of them know
-- keys: repository
-- sum: events, stars, forks, releases, pages_queries, pages_responses
-- distinct: papers, articles, accounts, pages_clients
-- min: first_paper
-- max: last_event_at
-- every: 1 hours
SELECT repository,
       sketch(arxiv_id) AS papers,
       min(arxiv_id) AS first_paper,
       sketch(article_id) AS articles,
       count(event_type) AS events,
       count(*) FILTER (WHERE event_type = 'WatchEvent') AS stars,
       count(*) FILTER (WHERE event_type = 'ForkEvent') AS forks,
       count(*) FILTER (WHERE event_type = 'ReleaseEvent') AS releases,
       sketch(actor_login) AS accounts,
       max(event_at) AS last_event_at,
       count(*) FILTER (WHERE NOT is_response) AS pages_queries,
       count(*) FILTER (WHERE is_response) AS pages_responses,
       sketch(client_ip) AS pages_clients
FROM (
    -- What a link names: `github.com/OWNER/NAME`, or the pages `OWNER.github.io/NAME`, which are that repository's too.
    -- GitHub does not tell upper from lower case.
    SELECT lower(regexp_replace(trim(TRAILING '.' FROM
               CASE
                   WHEN regexp_like(part, '^[A-Za-z0-9-]+[.]github[.]io/[A-Za-z0-9_.-]+')
                       THEN regexp_replace(part, '(?s)^([A-Za-z0-9-]+)[.]github[.]io/([A-Za-z0-9_.-]+).*$', '$1/$2')
                   WHEN regexp_like(part, '^[A-Za-z0-9-]+[.]github[.]io')
                       THEN regexp_replace(part, '(?s)^([A-Za-z0-9-]+)[.]github[.]io.*$', '$1/$1.github.io')
                   ELSE regexp_replace(part, '(?s)^(www[.])?github[.]com/([A-Za-z0-9-]+/[A-Za-z0-9_.-]+).*$', '$2')
               END), '[.]git$', '')) AS repository,
           arxiv_id,
           article_id,
           CAST(NULL AS STRING) AS event_type,
           CAST(NULL AS STRING) AS actor_login,
           CAST(NULL AS TIMESTAMP) AS event_at,
           CAST(NULL AS BOOLEAN) AS is_response,
           CAST(NULL AS STRING) AS client_ip
    FROM (
        SELECT arxiv_id, article_id, unnest(string_to_array(text, '//')) AS part
        FROM (
            SELECT arxiv_id, CAST(NULL AS STRING) AS article_id, 'https://' || link AS text
            FROM (SELECT arxiv_id, unnest(code_repositories) AS link FROM silver.arxiv WHERE deleted IS NOT TRUE) AS linked
            UNION ALL
            SELECT arxiv_id, CAST(NULL AS STRING) AS article_id, link AS text
            FROM (SELECT arxiv_id, unnest(links) AS link FROM silver.arxiv WHERE deleted IS NOT TRUE) AS cited
            WHERE link LIKE '%.github.io%'
            UNION ALL
            SELECT CAST(NULL AS STRING) AS arxiv_id, article_id, concat_ws(' ', link, coalesce(content_html, content_text)) AS text
            FROM silver.news
            WHERE concat_ws(' ', link, coalesce(content_html, content_text)) LIKE '%github.%'
        ) AS texts
    ) AS parts
    WHERE regexp_like(part, '^((www[.])?github[.]com/[A-Za-z0-9-]+/[A-Za-z0-9_.-]+|[A-Za-z0-9-]+[.]github[.]io)')
    UNION ALL
    SELECT lower(repo_name) AS repository,
           CAST(NULL AS STRING) AS arxiv_id,
           CAST(NULL AS STRING) AS article_id,
           type AS event_type,
           actor_login,
           event_time AS event_at,
           CAST(NULL AS BOOLEAN) AS is_response,
           CAST(NULL AS STRING) AS client_ip
    FROM silver.github
    WHERE repo_name IS NOT NULL AND is_bot IS NOT TRUE
    UNION ALL
    -- The host `OWNER.github.io` is served from the repository of that name.
    SELECT replace(qname, '.github.io', '') || '/' || qname AS repository,
           CAST(NULL AS STRING) AS arxiv_id,
           CAST(NULL AS STRING) AS article_id,
           CAST(NULL AS STRING) AS event_type,
           CAST(NULL AS STRING) AS actor_login,
           CAST(NULL AS TIMESTAMP) AS event_at,
           qr AS is_response,
           client_ip
    FROM silver.dns
    WHERE qname LIKE '%.github.io' AND label_count = 3
) AS known
GROUP BY repository;

WITH counted AS (
    SELECT repository,
           estimate(papers) AS papers,
           first_paper,
           estimate(articles) AS articles,
           events,
           stars,
           forks,
           releases,
           estimate(accounts) AS accounts,
           last_event_at,
           -- The pages of an owner are one host, whichever repository they show.
           max(greatest(pages_queries, pages_responses)) OVER (PARTITION BY split_part(repository, '/', 1)) AS pages_lookups
    FROM merged
)
SELECT *
FROM counted
WHERE CASE WHEN papers > 0 THEN 1 ELSE 0 END + CASE WHEN articles > 0 THEN 1 ELSE 0 END
    + CASE WHEN events > 0 THEN 1 ELSE 0 END + CASE WHEN pages_lookups > 0 THEN 1 ELSE 0 END >= 2
ORDER BY papers DESC, articles DESC, events DESC, repository
