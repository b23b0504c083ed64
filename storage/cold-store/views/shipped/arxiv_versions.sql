-- answers: how many papers of each category have one, two, three and more versions, and how many were withdrawn
-- keys: arxiv_id
-- max: category, versions, is_withdrawn
-- every: 6 hours
SELECT arxiv_id,
       max(coalesce(primary_category, '')) AS category,
       -- Some formats name the version, some list all of them, some say neither: then there is one at least.
       max(coalesce(greatest(version, version_count), 1)) AS versions,
       max(CASE WHEN withdrawn THEN 1 ELSE 0 END) AS is_withdrawn
FROM silver.arxiv
WHERE arxiv_id IS NOT NULL
  AND deleted IS NOT TRUE
GROUP BY arxiv_id;

WITH counted AS (
    SELECT category, versions, count(*) AS papers, sum(is_withdrawn) AS withdrawn_papers
    FROM merged
    GROUP BY 1, 2
)
SELECT category,
       versions,
       papers,
       round(1000 * CAST(papers AS DOUBLE) / sum(papers) OVER (PARTITION BY category)) / 10 AS percent_of_category,
       withdrawn_papers
FROM counted
ORDER BY category, versions
