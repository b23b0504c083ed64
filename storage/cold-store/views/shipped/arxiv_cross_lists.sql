-- answers: into which other categories the papers of each primary category are cross-listed, and which share of them
-- keys: primary_category, cross_list
-- distinct: papers
-- every: 6 hours
SELECT primary_category, cross_list, sketch(arxiv_id) AS papers
FROM (
    SELECT primary_category, arxiv_id, unnest(cross_lists) AS cross_list
    FROM silver.arxiv
    WHERE deleted IS NOT TRUE
    UNION ALL
    -- All papers of the category, so that shares can be told.
    SELECT primary_category, arxiv_id, '' AS cross_list
    FROM silver.arxiv
    WHERE deleted IS NOT TRUE
) AS listed
WHERE primary_category IS NOT NULL
GROUP BY primary_category, cross_list;

WITH counted AS (
    SELECT primary_category, cross_list, estimate(papers) AS papers FROM merged
),
with_total AS (
    SELECT *, max(CASE WHEN cross_list = '' THEN papers END) OVER (PARTITION BY primary_category) AS category_papers
    FROM counted
)
SELECT primary_category,
       cross_list,
       papers,
       category_papers,
       round(1000 * CAST(papers AS DOUBLE) / category_papers) / 10 AS percent_of_category
FROM with_total
WHERE cross_list <> ''
ORDER BY papers DESC, primary_category, cross_list
