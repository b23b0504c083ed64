-- answers: which bots act on GitHub on each day, in how many repositories, and their share of all events
-- keys: day, bot
-- sum: events, pushes, pull_requests, comments
-- distinct: repositories
-- time: day
-- every: 1 hours
SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
       -- People are one row, without a name, so that shares can be told.
       CASE WHEN is_bot THEN coalesce(actor_login, '?') ELSE '' END AS bot,
       count(*) AS events,
       count(*) FILTER (WHERE type = 'PushEvent') AS pushes,
       count(*) FILTER (WHERE type = 'PullRequestEvent') AS pull_requests,
       count(*) FILTER (WHERE type IN ('IssueCommentEvent', 'PullRequestReviewCommentEvent', 'CommitCommentEvent')) AS comments,
       sketch(CASE WHEN is_bot THEN repo_name END) AS repositories
FROM silver.github
GROUP BY 1, 2;

WITH shares AS (
    SELECT *,
           sum(events) OVER (PARTITION BY day) AS day_events,
           sum(CASE WHEN bot <> '' THEN events ELSE 0 END) OVER (PARTITION BY day) AS bot_events
    FROM merged
)
SELECT day,
       bot,
       events,
       pushes,
       pull_requests,
       comments,
       estimate(repositories) AS repositories,
       round(10000 * CAST(events AS DOUBLE) / day_events) / 100 AS percent_of_day,
       round(10000 * CAST(bot_events AS DOUBLE) / day_events) / 100 AS all_bots_percent_of_day
FROM shares
WHERE bot <> ''
ORDER BY day DESC, events DESC, bot
