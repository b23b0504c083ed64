-- answers: keywords that more articles have on a day than in the two weeks before it
-- keys: day, keyword
-- distinct: articles, feeds
-- time: day
-- past: 14 days
-- every: 1 hours
SELECT day, keyword, sketch(article_id) AS articles, sketch(feed) AS feeds
FROM (
    SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
           article_id,
           coalesce(feed_url, fetched_from) AS feed,
           unnest(keywords) AS keyword
    FROM silver.news
) AS told
GROUP BY day, keyword;

WITH daily AS (
    SELECT day, keyword, estimate(articles) AS articles, estimate(feeds) AS feeds FROM merged
),
with_past AS (
    SELECT *,
           -- Days without the keyword have no row.
           coalesce(sum(articles) OVER (
               PARTITION BY keyword ORDER BY day
               RANGE BETWEEN INTERVAL '14' DAY PRECEDING AND INTERVAL '1' DAY PRECEDING
           ), 0) AS articles_before
    FROM daily
)
SELECT day,
       keyword,
       articles,
       feeds,
       articles_before,
       -- How many times its usual day, where each keyword is given one more article in its past.
       round(10 * CAST(articles AS DOUBLE) / (1 + CAST(articles_before AS DOUBLE) / 14)) / 10 AS rise
FROM with_past
-- One article, or one author's favourite word, is no trend.
WHERE articles >= 3 AND feeds >= 2
ORDER BY day DESC, rise DESC, keyword
