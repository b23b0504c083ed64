-- answers: who writes papers with whom, how many, and since when
-- keys: author, coauthor
-- distinct: papers
-- min: first_paper_at
-- max: last_paper_at
-- every: 6 hours
SELECT author,
       coauthor,
       sketch(arxiv_id) AS papers,
       min(submitted_at) AS first_paper_at,
       max(submitted_at) AS last_paper_at
FROM (
    SELECT arxiv_id, submitted_at, author, unnest(author_names) AS coauthor
    FROM (
        SELECT arxiv_id, submitted_at, author_names, unnest(author_names) AS author
        FROM silver.arxiv
        -- Pairs grow with the square, and three thousand who sign a paper have not met: ten make 45 pairs.
        WHERE author_count BETWEEN 2 AND 10
          AND deleted IS NOT TRUE
    ) AS signed
) AS pairs
-- Each pair once.
WHERE author < coauthor
GROUP BY author, coauthor;

SELECT author, coauthor, estimate(papers) AS papers, first_paper_at, last_paper_at
FROM merged
ORDER BY papers DESC, author, coauthor
