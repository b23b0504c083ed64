-- answers: stories of each day: near-duplicates of one article across feeds, by how many feeds carry them, and who was first
-- keys: day, band
-- distinct: feeds, articles
-- min: lead_article, title, first_at
-- max: last_at
-- time: day
-- every: 10 minutes
SELECT day,
       band,
       sketch(feed) AS feeds,
       sketch(article_id) AS articles,
       min(article_id) AS lead_article,
       min(title) AS title,
       min(event_time) AS first_at,
       max(event_time) AS last_at
FROM (
    SELECT day,
           feed,
           article_id,
           title,
           event_time,
           -- Two of the four quarters of the signature: texts that differ in two bits or fewer have two quarters alike,
           -- and 32 equal bits are no chance. The letters say which quarters they are.
           unnest(make_array(
               'ab' || a || b, 'ac' || a || c, 'ad' || a || d, 'bc' || b || c, 'bd' || b || d, 'cd' || c || d
           )) AS band
    FROM (
        SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
               coalesce(feed_url, fetched_from) AS feed,
               article_id,
               coalesce(nullif(title, ''), nullif(left(summary, 100), ''), canonical_url) AS title,
               event_time,
               substr(simhash, 1, 4) AS a,
               substr(simhash, 5, 4) AS b,
               substr(simhash, 9, 4) AS c,
               substr(simhash, 13, 4) AS d
        FROM silver.news
        WHERE simhash IS NOT NULL
    ) AS quartered
) AS banded
GROUP BY day, band;

WITH told AS (
    SELECT day, band, lead_article, title, first_at, last_at, estimate(feeds) AS feeds, estimate(articles) AS articles
    FROM merged
),
-- A story is in up to six bands: the largest is shown.
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY day, lead_article ORDER BY feeds DESC, articles DESC, band) AS place
    FROM told
    WHERE feeds >= 2
)
SELECT day, title, feeds, articles, first_at, last_at, lead_article
FROM ranked
WHERE place = 1
ORDER BY day DESC, feeds DESC, articles DESC, lead_article
