SELECT arxiv_id, version, format, title, withdrawn, deleted
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY arxiv_id
        -- The archive's own record (of OAI-PMH or the snapshot, which have a `datestamp`) stands before what a listing or
        -- a search says of the same version. A newer version that only these name stands first until it is harvested.
        ORDER BY coalesce(datestamp IS NULL AND version > harvested, false) DESC,
            datestamp DESC NULLS LAST, version DESC NULLS LAST, fetched_at DESC, _offset DESC
    ) AS place
    FROM (
        SELECT *, max(CASE WHEN datestamp IS NOT NULL THEN version END) OVER (PARTITION BY arxiv_id) AS harvested
        FROM silver.arxiv
    )
)
WHERE place = 1
ORDER BY arxiv_id
