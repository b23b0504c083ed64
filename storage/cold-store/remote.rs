//! Object stores: S3 and what speaks its protocol, Azure Blob Storage, Google Cloud Storage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contract::{Error, Result, Secret};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::{Host, Url};

use crate::Settings;

/// The longest pause between two attempts of one request.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Schemes of `cold.url`.
const SCHEMES: [&str; 3] = ["s3", "az", "gs"];

/// What logs in, by the names that the providers' own tools read from the environment: `AWS_ACCESS_KEY_ID`,
/// `AZURE_STORAGE_ACCOUNT_KEY`, `GOOGLE_SERVICE_ACCOUNT`. Shown nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, Secret>);

impl Credentials {
    /// Keeps those variables of an environment that begin with `AWS_`, `AZURE_` or `GOOGLE_`.
    pub fn from_environment(environment: impl Iterator<Item = (String, String)>) -> Self {
        let known = |name: &str| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|start| name.starts_with(start));
        let kept = environment.filter(|(name, _)| known(name));
        Self(kept.map(|(name, value)| (name, Secret::from(value))).collect())
    }

    /// Adds those of a file, which count more: lines `NAME = value` with the same names in any case, as in
    /// `~/.aws/credentials` too, of which the first section is read.
    fn add_file(&mut self, text: &str) {
        let lines = text.lines().map(str::trim).enumerate();
        let first_section = lines.take_while(|(place, line)| *place == 0 || !line.starts_with('['));
        for (name, value) in first_section.filter_map(|(_, line)| line.split_once('=')) {
            let (name, value) = (name.trim().to_uppercase(), value.trim().to_owned());
            self.0.insert(name, Secret::from(value));
        }
    }

    /// The name of each as the `object_store` crate knows it, with the value.
    fn values(&self) -> impl Iterator<Item = (String, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.to_lowercase(), value.reveal()?)))
    }
}

/// Opens the store that `cold.url` names. Answers it from its root, and the URL.
///
/// # Errors
/// `Change`: a setting is wrong or missing.
pub(crate) fn open(settings: &Settings) -> Result<(Arc<dyn ObjectStore>, Url)> {
    let url = parse(&settings.url)?;
    let mut credentials = settings.credentials.clone();
    let file = settings.credentials_file.as_str();
    let is_service_account = url.scheme() == "gs" && !file.is_empty();
    if !file.is_empty() && !is_service_account {
        let doing = || format!("read the setting `cold.credentials_file`: `{file}`");
        credentials.add_file(&std::fs::read_to_string(file).map_err(|error| Error::change(doing()).because(error))?);
    }
    let built: Result<Arc<dyn ObjectStore>, object_store::Error> = match url.scheme() {
        "s3" => s3(settings, &url, &credentials)?.build().map(|store| Arc::new(store) as _),
        "az" => azure(settings, &url, &credentials)?.build().map(|store| Arc::new(store) as _),
        _ => {
            let mut builder = google(settings, &url, &credentials)?;
            if is_service_account {
                builder = builder.with_service_account_path(file);
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
    };
    let store = built.map_err(|error| Error::change(format!("open the cold store `{url}`")).because(error))?;
    Ok((store, url))
}

/// Whether `cold.url` names an object store, and no folder of this disk.
pub(crate) fn is_remote(url: &str) -> bool {
    url.contains("://") && !url.starts_with("file://")
}

fn parse(text: &str) -> Result<Url> {
    // What logs in may stand in it by mistake, so it is not repeated.
    let wrong = |what: &str| {
        Error::change(format!(
            "use the setting `cold.url`: {what} (a path, or as `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `gs://BUCKET/PREFIX`)"
        ))
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(wrong(&format!("`{}` is no scheme of a store", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(wrong("what logs in stands in the environment or in `cold.credentials_file`"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("the bucket is missing"));
    }
    Ok(url)
}

fn s3(settings: &Settings, url: &Url, credentials: &Credentials) -> Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::new().with_url(url.as_str());
    for (name, value) in credentials.values() {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if !settings.region.is_empty() {
        builder = builder.with_region(&settings.region);
    }
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(&settings.endpoint);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let options = client_options(settings, endpoint.as_deref())?;
    // Path style, which every server knows.
    let builder = builder.with_virtual_hosted_style_request(false);
    Ok(builder.with_client_options(options).with_retry(retries(settings)))
}

fn azure(settings: &Settings, url: &Url, credentials: &Credentials) -> Result<MicrosoftAzureBuilder> {
    let mut builder = MicrosoftAzureBuilder::new().with_url(url.as_str());
    for (name, value) in credentials.values() {
        if let Ok(key) = name.parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(settings.endpoint.clone());
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let options = client_options(settings, endpoint.as_deref())?;
    Ok(builder.with_client_options(options).with_retry(retries(settings)))
}

fn google(settings: &Settings, url: &Url, credentials: &Credentials) -> Result<GoogleCloudStorageBuilder> {
    let mut builder = GoogleCloudStorageBuilder::new().with_url(url.as_str());
    for (name, value) in credentials.values() {
        if let Ok(key) = name.parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if !settings.endpoint.is_empty() {
        builder = builder.with_base_url(&settings.endpoint);
    }
    let options =
        client_options(settings, Some(&settings.endpoint).filter(|text| !text.is_empty()).map(|text| &**text))?;
    Ok(builder.with_client_options(options).with_retry(retries(settings)))
}

fn client_options(settings: &Settings, endpoint: Option<&str>) -> Result<ClientOptions> {
    let is_plain = match endpoint {
        Some(endpoint) => is_plain(endpoint, settings.allow_http)?,
        None => false,
    };
    let timeout = Duration::from_secs(settings.request_seconds_max);
    Ok(ClientOptions::new().with_timeout(timeout).with_connect_timeout(timeout).with_allow_http(is_plain))
}

/// Whether the endpoint is spoken to without TLS; an error where it must not be.
fn is_plain(endpoint: &str, allow_http: bool) -> Result<bool> {
    let wrong = |what: String| Err(Error::change(format!("use the setting `cold.endpoint`: {what}")));
    let Ok(url) = Url::parse(endpoint) else {
        return wrong("it is no address (as `https://storage.example:9000`)".to_owned());
    };
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return wrong("it has no host (as `https://storage.example:9000`)".to_owned()),
    };
    match url.scheme() {
        "https" => Ok(false),
        "http" if is_loopback || allow_http => Ok(true),
        "http" => wrong("`http` shows all data to the network; use `https`, or set `cold.allow_http`".to_owned()),
        other => wrong(format!("`{other}` is no scheme of it (`https`)")),
    }
}

fn retries(settings: &Settings) -> RetryConfig {
    let attempts = u64::from(settings.request_retries_max) + 1;
    RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: PAUSE_MAX, base: 2.0 },
        max_retries: settings.request_retries_max as usize,
        retry_timeout: Duration::from_secs(settings.request_seconds_max.saturating_mul(attempts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(variables: &[(&str, &str)]) -> Credentials {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Credentials::from_environment(variables)
    }

    fn settings(url: &str, variables: &[(&str, &str)]) -> Settings {
        Settings { url: url.to_owned(), credentials: given(variables), ..Settings::default() }
    }

    #[test]
    fn s3_takes_its_endpoint_region_and_keys_from_the_settings_and_the_environment() {
        let keys = [("AWS_ACCESS_KEY_ID", "lab"), ("AWS_SECRET_ACCESS_KEY", "hidden"), ("AWS_REGION", "eu-west-1")];
        let mut settings = settings("s3://bucket/some/prefix", &keys);
        let value = |settings: &Settings, key| {
            let url = parse(&settings.url).unwrap();
            s3(settings, &url, &settings.credentials).unwrap().get_config_value(&key).unwrap_or_default()
        };
        assert_eq!(value(&settings, AmazonS3ConfigKey::AccessKeyId), "lab");
        assert_eq!(value(&settings, AmazonS3ConfigKey::Region), "eu-west-1");
        settings.region = "us-east-2".to_owned();
        settings.endpoint = "http://127.0.0.1:7070".to_owned();
        assert_eq!(value(&settings, AmazonS3ConfigKey::Region), "us-east-2");
        assert_eq!(value(&settings, AmazonS3ConfigKey::Endpoint), "http://127.0.0.1:7070");
        let (store, url) = open(&settings).unwrap();
        assert_eq!((store.to_string().as_str(), url.path()), ("AmazonS3(bucket)", "/some/prefix"));
        assert!(!format!("{settings:?}").contains("hidden"));
    }

    #[test]
    fn azure_and_google_are_built_from_a_url_and_what_logs_in() {
        let key = "bm8gcmVhbCBrZXk=";
        let account = [("AZURE_STORAGE_ACCOUNT_NAME", "lab"), ("AZURE_STORAGE_ACCOUNT_KEY", key)];
        let (store, url) = open(&settings("az://container/prefix", &account)).unwrap();
        assert!(store.to_string().contains("container"), "{store}");
        assert_eq!(url.path(), "/prefix");
        let error = open(&settings("az://container/prefix", &[])).map(|(_, url)| url).expect_err("no account");
        assert!(error.to_string().contains("az://container/prefix"), "{error}");
        let anonymous = [("GOOGLE_SKIP_SIGNATURE", "true")];
        let (store, _) = open(&settings("gs://bucket/prefix", &anonymous)).unwrap();
        assert!(store.to_string().contains("bucket"), "{store}");
    }

    #[test]
    fn plain_http_beyond_this_machine_wants_a_setting_of_its_own() {
        for near in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(is_plain(near, false).unwrap(), "{near}");
        }
        let error = is_plain("http://storage.example", false).unwrap_err();
        assert!(error.to_string().contains("`cold.allow_http`"), "{error}");
        assert!(is_plain("http://storage.example", true).unwrap());
        assert!(!is_plain("https://storage.example", false).unwrap());
        assert!(is_plain("storage.example:9000", false).is_err());
    }

    #[test]
    fn a_url_that_cannot_be_is_refused_without_repeating_it() {
        for (url, part) in [
            ("ftp://bucket", "`ftp` is no scheme"),
            ("s3://key:hidden@bucket/prefix", "`cold.credentials_file`"),
            ("s3:///prefix", "bucket is missing"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("hidden"), "{error}");
        }
        assert!(is_remote("s3://bucket") && !is_remote("/var/cold") && !is_remote("file:///var/cold"));
    }

    #[test]
    fn a_file_of_credentials_counts_more_than_the_environment() {
        let mut credentials = given(&[("AWS_ACCESS_KEY_ID", "of the environment"), ("PATH", "no credential")]);
        credentials.add_file("[default]\naws_access_key_id = of the file\n[other]\naws_access_key_id = other\n");
        let values: Vec<_> = credentials.values().collect();
        assert_eq!(values, [("aws_access_key_id".to_owned(), "of the file")]);
    }
}
