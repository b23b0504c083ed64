//! The views that come with the program.

/// Their names and texts, by name.
pub(super) const SHIPPED: &[(&str, &str)] = &[
    ("across_domains", include_str!("shipped/across_domains.sql")),
    ("across_repositories", include_str!("shipped/across_repositories.sql")),
    ("arxiv_coauthors", include_str!("shipped/arxiv_coauthors.sql")),
    ("arxiv_code", include_str!("shipped/arxiv_code.sql")),
    ("arxiv_cross_lists", include_str!("shipped/arxiv_cross_lists.sql")),
    ("arxiv_papers", include_str!("shipped/arxiv_papers.sql")),
    ("arxiv_versions", include_str!("shipped/arxiv_versions.sql")),
    ("dns_domains", include_str!("shipped/dns_domains.sql")),
    ("dns_failures", include_str!("shipped/dns_failures.sql")),
    ("dns_latency", include_str!("shipped/dns_latency.sql")),
    ("dns_new_domains", include_str!("shipped/dns_new_domains.sql")),
    ("dns_talkers", include_str!("shipped/dns_talkers.sql")),
    ("github_activity", include_str!("shipped/github_activity.sql")),
    ("github_bots", include_str!("shipped/github_bots.sql")),
    ("github_releases", include_str!("shipped/github_releases.sql")),
    ("github_rising", include_str!("shipped/github_rising.sql")),
    ("news_activity", include_str!("shipped/news_activity.sql")),
    ("news_keywords", include_str!("shipped/news_keywords.sql")),
    ("news_stories", include_str!("shipped/news_stories.sql")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_listed_by_its_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("views/shipped");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        files.sort();
        assert_eq!(SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>(), files);
    }
}
