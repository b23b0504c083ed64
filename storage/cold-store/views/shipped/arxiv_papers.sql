-- answers: papers per category and day: how many are new, how many revised, and how many are only cross-listed there
-- keys: day, category
-- distinct: papers, new_papers, primary_papers
-- time: day
-- every: 1 hours
SELECT day,
       category,
       -- Distinct, as each harvest of a paper is a row. A category has fewer than 1,024 papers a day, so these are exact.
       sketch(arxiv_id) AS papers,
       sketch(CASE WHEN is_new THEN arxiv_id END) AS new_papers,
       sketch(CASE WHEN category = primary_category THEN arxiv_id END) AS primary_papers
FROM (
    SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
           arxiv_id,
           primary_category,
           event_time = submitted_at AS is_new,
           unnest(categories) AS category
    FROM silver.arxiv
    WHERE deleted IS NOT TRUE
) AS listed
GROUP BY day, category;

WITH counted AS (
    SELECT day,
           category,
           estimate(papers) AS papers,
           estimate(new_papers) AS new_papers,
           estimate(primary_papers) AS primary_papers
    FROM merged
)
SELECT day, category, papers, new_papers, papers - new_papers AS revised_papers, papers - primary_papers AS cross_listed_papers
FROM counted
ORDER BY day DESC, papers DESC, category
