//! Addresses: relative to absolute, and to a form that stays the same however an article is linked.

use url::{Host, Url};

/// The absolute form of a reference by RFC 3986, section 5.2, as text: nothing is escaped or lower-cased, so that an
/// address that is absolute already stays as the feed wrote it. A base may itself be relative; without one, or with one
/// such as `mailto:`, the reference stays as it is.
pub(super) fn join(base: &str, reference: &str) -> String {
    let reference = reference.trim();
    let authority_start = base.find("://").map(|place| place + "://".len());
    if has_scheme(reference) || (authority_start.is_none() && (base.is_empty() || has_scheme(base))) {
        return reference.to_owned();
    }
    let start = authority_start.unwrap_or_default();
    if reference.starts_with("//") {
        return format!("{}{reference}", base[..start].trim_end_matches('/'));
    }
    let base = base.split('#').next().unwrap_or(base);
    if reference.is_empty() || reference.starts_with('#') {
        return format!("{base}{reference}");
    }
    let base = base.split('?').next().unwrap_or(base);
    if reference.starts_with('?') {
        return format!("{base}{reference}");
    }
    let has_authority = authority_start.is_some();
    let path_start = if has_authority { base[start..].find('/').map_or(base.len(), |place| start + place) } else { 0 };
    let (before, path) = base.split_at(path_start);
    let folder = &path[..path.rfind('/').map_or(0, |place| place + 1)];
    let whole = if reference.starts_with('/') { reference.to_owned() } else { format!("{folder}{reference}") };
    let (path, query) = whole.split_at(whole.find(['?', '#']).unwrap_or(whole.len()));
    let slash = if has_authority || path.starts_with('/') { "/" } else { "" };
    format!("{before}{slash}{}{query}", without_dots(path))
}

/// Whether a text begins with a scheme such as `http:` or `tag:`.
pub(super) fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part {
            "." | ".." => {
                kept.truncate(kept.len() - usize::from(part == ".." && !kept.is_empty()));
                kept.extend(is_last.then_some(""));
            }
            _ => kept.push(part),
        }
    }
    kept.join("/")
}

/// The address of an article without what only counts readers: redirects of aggregators taken off, host lower-case,
/// tracking parameters and the fragment gone (one that names a page, `#!`, stays). None for what is no web address.
pub(super) fn canonical(address: &str) -> Option<Url> {
    let mut url = web_address(address)?;
    for _ in 0..REDIRECTS_MAX {
        match target(&url) {
            Some(inner) => url = inner,
            None => break,
        }
    }
    if !url.fragment().is_some_and(|fragment| fragment.starts_with(['!', '/'])) {
        url.set_fragment(None);
    }
    let kept: Vec<&str> = url.query().unwrap_or("").split('&').filter(|pair| !is_tracking(pair)).collect();
    let query = kept.join("&");
    url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
    Some(url)
}

/// What two addresses of one article have in common: scheme, `www.`, a mobile or AMP form, a trailing slash and the
/// order of parameters do not count. None for the front page of a site, which is no article's own.
pub(super) fn identity(canonical: &Url) -> Option<String> {
    let host = canonical.host_str()?;
    let host = ["www.", "m.", "mobile.", "amp."].iter().find_map(|prefix| host.strip_prefix(prefix)).unwrap_or(host);
    let path = canonical.path().trim_end_matches('/');
    let path = path.strip_suffix("/amp").or_else(|| path.strip_suffix(".amp")).unwrap_or(path);
    let path =
        if path.strip_suffix("/index.html").is_some() { &path[..path.len() - "/index.html".len()] } else { path };
    let mut query: Vec<&str> = canonical.query().unwrap_or("").split('&').filter(|pair| !is_amp(pair)).collect();
    query.sort_unstable();
    let query = query.join("&");
    let fragment = canonical.fragment().unwrap_or("");
    let port = canonical.port().map(|port| format!(":{port}")).unwrap_or_default();
    let is_front_page = path.is_empty() && query.is_empty() && fragment.is_empty();
    (!is_front_page).then(|| format!("{host}{port}{path}?{query}#{fragment}"))
}

/// Redirects inside each other that are taken off.
const REDIRECTS_MAX: usize = 3;

fn web_address(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https")
        && matches!(url.host(), Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)));
    is_web.then_some(url)
}

/// Where an aggregator's or AMP cache's address leads, if it says so itself.
fn target(url: &Url) -> Option<Url> {
    let (host, path) = (url.host_str()?, url.path());
    let amp_path = if host.ends_with(".cdn.ampproject.org") {
        path.strip_prefix("/c/").or_else(|| path.strip_prefix("/v/"))
    } else if host.starts_with("www.google.") {
        path.strip_prefix("/amp/")
    } else {
        None
    };
    if let Some(path) = amp_path {
        return match path.strip_prefix("s/") {
            Some(path) => web_address(&format!("https://{path}")),
            None => web_address(&format!("http://{path}")),
        };
    }
    let is_redirect = host.starts_with("www.google.") && path == "/url"
        || host == "news.google.com" && path.starts_with("/news/url")
        || host.ends_with("bing.com") && path.ends_with("/apiclick.aspx");
    let parameter = |names: [&str; 2]| url.query_pairs().find(|(name, _)| names.contains(&name.as_ref()));
    is_redirect.then(|| parameter(["url", "q"])).flatten().and_then(|(_, value)| web_address(&value))
}

fn is_tracking(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or(pair).to_ascii_lowercase();
    name.is_empty()
        || TRACKING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || TRACKING.contains(&name.as_str())
        || TRACKING_PAIRS
            .iter()
            .any(|start| pair.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)))
}

/// Parameters that only with such a value say where the reader comes from.
const TRACKING_PAIRS: &[&str] = &["partner=rss", "emc=rss", "mod=rss"];

fn is_amp(pair: &str) -> bool {
    matches!(pair, "" | "amp" | "amp=1" | "amp=true" | "outputType=amp")
}

const TRACKING_PREFIXES: &[&str] = &["utm_", "mtm_", "pk_", "piwik_", "matomo_", "hsa_", "_hs", "stm_", "at_custom"];

/// Parameters that name a campaign, a click or a reader; none of them chooses the page.
const TRACKING: &[&str] = &[
    "fbclid",
    "gclid",
    "gclsrc",
    "dclid",
    "gbraid",
    "wbraid",
    "msclkid",
    "yclid",
    "ysclid",
    "twclid",
    "ttclid",
    "igshid",
    "igsh",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "oly_anon_id",
    "oly_enc_id",
    "vero_id",
    "vero_conv",
    "wickedid",
    "rb_clickid",
    "s_cid",
    "ns_campaign",
    "ns_mchannel",
    "ns_source",
    "ns_linkname",
    "ns_fee",
    "at_medium",
    "at_campaign",
    "xtor",
    "cmpid",
    "ocid",
    "ncid",
    "smid",
    "sr_share",
    "guccounter",
    "guce_referrer",
    "guce_referrer_sig",
    "feature_src",
    "ftag",
    "fb_action_ids",
    "fb_action_types",
    "fb_ref",
    "fb_source",
    "ga_source",
    "ga_medium",
    "ga_campaign",
    "srsltid",
    "_ga",
    "_gl",
    "_openstat",
    "spm",
    "trk",
    "trkcampaign",
    "cmp",
    "partner_rss",
    "wt_mc",
    "wt_zmc",
    "maca",
    "traffic_source",
    "feedtype",
    "feedname",
    "ito",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_the_rfc_shows() {
        let base = "http://a/b/c/d;p?q";
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("", "http://a/b/c/d;p?q"),
            ("..", "http://a/b/"),
            ("../../../g", "http://a/g"),
            ("tag:x,2005:1", "tag:x,2005:1"),
            ("HTTP://Other/ä b", "HTTP://Other/ä b"),
        ] {
            assert_eq!(join(base, reference), expected, "{reference}");
        }
        assert_eq!(join("", "g"), "g");
        assert_eq!(join("http://a", "g"), "http://a/g");
        assert_eq!(join("/b/c", "g"), "/b/g", "a base that is relative itself");
        assert_eq!(join("mailto:a@b", "g"), "g");
    }

    fn key(address: &str) -> Option<String> {
        identity(&canonical(address)?)
    }

    #[test]
    fn one_article_has_one_identity_however_it_is_linked() {
        let plain = key("https://example.org/2026/a-story");
        for address in [
            "http://www.example.org/2026/a-story/?utm_source=rss&utm_medium=feed#comments",
            "https://m.example.org/2026/a-story?fbclid=x",
            "https://EXAMPLE.org:443/2026/a-story/amp/",
            "https://amp.example.org/2026/a-story?amp=1",
            "https://www.google.com/amp/s/example.org/2026/a-story",
            "https://example-org.cdn.ampproject.org/c/s/example.org/2026/a-story",
            "https://example.org/2026/a-story?partner=rssnyt&emc=rss&mod=rss_front&wt_mc=a&wt_zmc=b&maca=c",
            "https://example.org/2026/a-story?traffic_source=rss&feedType=RSS&feedName=top&ito=1490",
            "https://www.google.com/url?rct=j&url=https://example.org/2026/a-story&ct=ga",
        ] {
            assert_eq!(key(address), plain, "{address}");
        }
        assert_ne!(key("https://example.org/?p=1"), key("https://example.org/?p=2"));
        assert_ne!(key("https://example.org/a?mod=x"), key("https://example.org/a"));
        assert_eq!(key("https://example.org/a?x=1&y=2"), key("https://example.org/a?y=2&x=1"));
    }

    #[test]
    fn what_is_no_article_s_address_has_no_identity() {
        for address in ["http://example.org", "https://www.example.org/?utm_source=x", "mailto:a@b", "/a", "a b"] {
            assert_eq!(key(address), None, "{address}");
        }
    }
}
