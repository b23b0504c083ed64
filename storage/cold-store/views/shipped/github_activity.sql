-- answers: GitHub's events per hour and type, by how many accounts in how many repositories, and the share that bots made
-- keys: hour, type
-- sum: events, bot_events
-- distinct: actors, repositories
-- time: hour
-- every: 10 minutes
SELECT date_trunc('hour', event_time) AS hour,
       type,
       count(*) AS events,
       count(*) FILTER (WHERE is_bot) AS bot_events,
       sketch(actor_login) AS actors,
       sketch(repo_name) AS repositories
FROM silver.github
GROUP BY 1, 2;

SELECT hour,
       type,
       events,
       round(1000 * CAST(bot_events AS DOUBLE) / events) / 10 AS bot_percent,
       estimate(actors) AS actors,
       estimate(repositories) AS repositories
FROM merged
ORDER BY hour DESC, events DESC, type
