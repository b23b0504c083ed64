-- answers: papers with code: which repositories each paper links, and how many papers link the same repository
-- keys: arxiv_id, repository
-- min: submitted_at
-- max: title, category, updated_at
-- every: 1 hours
SELECT arxiv_id,
       lower(repository) AS repository,
       min(submitted_at) AS submitted_at,
       max(title) AS title,
       max(primary_category) AS category,
       max(event_time) AS updated_at
FROM (
    SELECT arxiv_id, submitted_at, title, primary_category, event_time, unnest(code_repositories) AS repository
    FROM silver.arxiv
    WHERE deleted IS NOT TRUE
) AS linked
GROUP BY 1, 2;

SELECT submitted_at,
       arxiv_id,
       title,
       category,
       repository,
       -- A repository that many papers link is a library or a collection.
       count(*) OVER (PARTITION BY repository) AS repository_papers,
       updated_at
FROM merged
ORDER BY submitted_at DESC NULLS LAST, arxiv_id, repository
