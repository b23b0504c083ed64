-- answers: repositories that gain more stars, forks and contributors on a day than in the four weeks before it
-- keys: day, repository
-- sum: stars, forks
-- distinct: contributors
-- time: day
-- past: 28 days
-- every: 1 hours
SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
       repo_name AS repository,
       count(*) FILTER (WHERE type = 'WatchEvent') AS stars,
       count(*) FILTER (WHERE type = 'ForkEvent') AS forks,
       -- Who pushes or sends pull requests; a bot is no sign of growing interest.
       sketch(CASE WHEN type IN ('PushEvent', 'PullRequestEvent') THEN actor_login END) AS contributors
FROM silver.github
WHERE type IN ('WatchEvent', 'ForkEvent', 'PushEvent', 'PullRequestEvent')
  AND is_bot IS NOT TRUE
  AND repo_name IS NOT NULL
GROUP BY 1, 2;

WITH daily AS (
    SELECT day, repository, stars, forks, estimate(contributors) AS contributors FROM merged
),
with_past AS (
    SELECT *,
           -- What the 28 days before had; days without an event have no row.
           coalesce(sum(stars) OVER past, 0) AS stars_before,
           coalesce(sum(forks) OVER past, 0) AS forks_before,
           coalesce(sum(contributors) OVER past, 0) AS contributors_before
    FROM daily
    WINDOW past AS (
        PARTITION BY repository ORDER BY day
        RANGE BETWEEN INTERVAL '28' DAY PRECEDING AND INTERVAL '1' DAY PRECEDING
    )
)
SELECT day,
       repository,
       stars,
       forks,
       contributors,
       stars_before,
       forks_before,
       contributors_before,
       -- How many times its usual day, where each repository is given one more in its past: 1 from nothing is no rise.
       round(10 * CAST(stars + forks + contributors AS DOUBLE)
             / (1 + CAST(stars_before + forks_before + contributors_before AS DOUBLE) / 28)) / 10 AS rise
FROM with_past
-- Below that it is chance.
WHERE stars + forks >= 3
ORDER BY day DESC, rise DESC, stars DESC, repository
