-- answers: the releases that repositories published, the newest first, with tag, name, author and the start of the notes
-- keys: day, repository, tag
-- min: released_at
-- max: name, author, is_prerelease, url, notes
-- time: day
-- every: 10 minutes
SELECT CAST(date_trunc('day', event_time) AS DATE) AS day,
       repo_name AS repository,
       release_tag AS tag,
       min(event_time) AS released_at,
       max(title) AS name,
       max(actor_login) AS author,
       max(CASE WHEN prerelease THEN 1 ELSE 0 END) AS is_prerelease,
       max(url) AS url,
       max(left(body, 500)) AS notes
FROM silver.github
WHERE type = 'ReleaseEvent'
  AND release_tag IS NOT NULL
  -- An edit or a deletion is no news.
  AND coalesce(action, 'published') = 'published'
GROUP BY 1, 2, 3;

SELECT released_at, repository, tag, name, author, is_prerelease = 1 AS is_prerelease, url, notes, day
FROM merged
ORDER BY released_at DESC, repository, tag
