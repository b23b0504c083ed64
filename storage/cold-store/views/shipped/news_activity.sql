-- answers: articles per source and hour, how long they are, and how many came without a date
-- keys: hour, feed
-- distinct: articles
-- sum: entries, words, undated_entries
-- max: feed_title
-- time: hour
-- every: 10 minutes
SELECT date_trunc('hour', event_time) AS hour,
       coalesce(feed_url, fetched_from, '') AS feed,
       max(feed_title) AS feed_title,
       sketch(article_id) AS articles,
       -- A changed article is one more entry.
       count(*) AS entries,
       sum(coalesce(word_count, 0)) AS words,
       count(*) FILTER (WHERE published_source = 'fetched') AS undated_entries
FROM silver.news
GROUP BY 1, 2;

SELECT hour,
       feed,
       feed_title,
       estimate(articles) AS articles,
       entries,
       round(CAST(words AS DOUBLE) / entries) AS mean_words,
       undated_entries
FROM merged
ORDER BY hour DESC, entries DESC, feed
