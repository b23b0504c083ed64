-- answers: what each repository's events are like, as shares from 0 to 1, and in which cluster of repositories that puts it
-- keys: day, repository
-- sum: events, pushes, talks, pull_requests, interest, refs, bot_events
-- distinct: people
-- time: day
-- every: 1 hours
SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
       repo_name AS repository,
       count(*) AS events,
       count(*) FILTER (WHERE type = 'PushEvent') AS pushes,
       count(*) FILTER (WHERE type IN ('IssuesEvent', 'IssueCommentEvent', 'CommitCommentEvent', 'DiscussionEvent')) AS talks,
       count(*) FILTER (WHERE type LIKE 'PullRequest%') AS pull_requests,
       count(*) FILTER (WHERE type IN ('WatchEvent', 'ForkEvent')) AS interest,
       count(*) FILTER (WHERE type IN ('CreateEvent', 'DeleteEvent', 'ReleaseEvent')) AS refs,
       count(*) FILTER (WHERE is_bot) AS bot_events,
       sketch(actor_login) AS people
FROM silver.github
WHERE repo_name IS NOT NULL AND repo_name <> '/'
GROUP BY 1, 2;

WITH totals AS (
    SELECT repository,
           count(*) AS days,
           sum(events) AS events,
           sum(pushes) AS pushes,
           sum(talks) AS talks,
           sum(pull_requests) AS pull_requests,
           sum(interest) AS interest,
           sum(refs) AS refs,
           sum(bot_events) AS bot_events,
           -- Somebody who is there on two days counts twice.
           sum(estimate(people)) AS people
    FROM merged
    GROUP BY repository
),
features AS (
    SELECT repository,
           days,
           events,
           round(1000 * CAST(pushes AS DOUBLE) / events) / 1000 AS push_share,
           round(1000 * CAST(talks AS DOUBLE) / events) / 1000 AS talk_share,
           round(1000 * CAST(pull_requests AS DOUBLE) / events) / 1000 AS pull_share,
           round(1000 * CAST(interest AS DOUBLE) / events) / 1000 AS interest_share,
           round(1000 * CAST(refs AS DOUBLE) / events) / 1000 AS ref_share,
           round(1000 * CAST(bot_events AS DOUBLE) / events) / 1000 AS bot_share,
           -- 1 where each event is somebody else's.
           round(1000 * CAST(people AS DOUBLE) / events) / 1000 AS people_share
    FROM totals
),
-- The model: a cluster's number and its centre. `repository_clusters.py` puts lines in this one's place.
centres AS (
    SELECT * FROM (VALUES
        (CAST(NULL AS BIGINT), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    ) AS model (cluster_number, push, talk, pull, interest, ref, bot, people)
),
measured AS (
    SELECT features.*,
           cluster_number,
           (push_share - push) * (push_share - push)
           + (talk_share - talk) * (talk_share - talk)
           + (pull_share - pull) * (pull_share - pull)
           + (interest_share - interest) * (interest_share - interest)
           + (ref_share - ref) * (ref_share - ref)
           + (bot_share - bot) * (bot_share - bot)
           + (people_share - people) * (people_share - people) AS distance
    FROM features CROSS JOIN centres
),
ranked AS (
    SELECT measured.*, row_number() OVER (PARTITION BY repository ORDER BY distance, cluster_number) AS place
    FROM measured
)
SELECT repository, days, events, push_share, talk_share, pull_share, interest_share, ref_share, bot_share, people_share, cluster_number
FROM ranked
WHERE place = 1
ORDER BY events DESC, repository
