//! Objects in buckets: `s3://`, `gs://`, `az://`, through `object_store` and our own HTTP client.
//!
//! Another server than the cloud's own is named by `AWS_ENDPOINT_URL`, `GOOGLE_BASE_URL` or `AZURE_STORAGE_ENDPOINT`, with
//! `…_ALLOW_HTTP=true` for one without TLS and `…_SKIP_SIGNATURE=true` for one without credentials; so all three are tested
//! against servers on loopback that speak as much of each interface as reading takes. Not tested are the clouds themselves
//! and their ways to sign.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpService,
};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, GetRange, ObjectStore, RetryConfig};

use super::Tally;
use super::answer::{Answer, Body, Failure, unless_cancelled};
use super::place::{BucketPlace, Cloud, PathFilter, is_glob, literal_folder};
use super::settings::Settings;
use super::web;
use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::plural::counted;

/// Objects that a glob looks at, at most: what memory is bounded by.
const MOST_OBJECTS: usize = 1_000_000;
/// For the metadata server of a cloud machine; elsewhere there is no answer.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// A bucket.
pub(super) struct Bucket {
    /// Its objects.
    pub store: Arc<dyn ObjectStore>,
    /// What it takes to be let in.
    pub credentials: &'static str,
}

impl Bucket {
    /// The bucket of a place.
    pub fn open_store(place: &BucketPlace, settings: &Settings) -> Result<Self> {
        let options = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(settings.connect_timeout);
        let connector = Connector {
            settings: settings.clone(),
            usual: options.get_config_value(&ClientConfigKey::ConnectTimeout),
        };
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: settings.first_wait,
                max_backoff: settings.longest_wait,
                base: 2.0,
            },
            max_retries: settings.retries as usize,
            // The attempts are counted; the store's own limit in time would cut a long wait short.
            retry_timeout: settings.longest_wait.saturating_mul(settings.retries + 1),
        };
        let buckets = &settings.buckets;
        let built: object_store::Result<Arc<dyn ObjectStore>> = match place.cloud {
            Cloud::S3 => {
                let mut builder = AmazonS3Builder::new()
                    .with_client_options(options)
                    .with_retry(retry);
                for (key, value) in known::<AmazonS3ConfigKey>(buckets, "aws_") {
                    builder = builder.with_config(key, value);
                }
                let builder = builder
                    .with_http_connector(connector)
                    .with_bucket_name(&place.bucket);
                builder.build().map(|store| Arc::new(store) as _)
            }
            Cloud::Gcs => {
                let mut builder = GoogleCloudStorageBuilder::new()
                    .with_client_options(options)
                    .with_retry(retry);
                for (key, value) in known::<GoogleConfigKey>(buckets, "google_") {
                    builder = builder.with_config(key, value);
                }
                let builder = builder
                    .with_http_connector(connector)
                    .with_bucket_name(&place.bucket);
                builder.build().map(|store| Arc::new(store) as _)
            }
            Cloud::Azure => {
                let mut builder = MicrosoftAzureBuilder::new()
                    .with_client_options(options)
                    .with_retry(retry);
                for (key, value) in known::<AzureConfigKey>(buckets, "azure_") {
                    builder = builder.with_config(key, value);
                }
                let builder = builder
                    .with_http_connector(connector)
                    .with_container_name(&place.bucket);
                builder.build().map(|store| Arc::new(store) as _)
            }
        };
        let credentials = place.cloud.credentials();
        match built {
            Ok(store) => Ok(Self { store, credentials }),
            Err(error) => {
                let message = format!(
                    "set up access to the bucket `{}`: {}",
                    place.bucket,
                    explained(&error)
                );
                Err(Error::environment(message).hint(credentials))
            }
        }
    }

    /// A store of another make.
    #[cfg(test)]
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            credentials: "",
        }
    }

    /// The keys that a key or glob stands for but those that `exclude` matches, in order, and what is left out.
    pub async fn keys(
        &self,
        place: &BucketPlace,
        exclude: &[String],
        cancel: &Cancel,
    ) -> Result<(Vec<String>, Tally)> {
        if !is_glob(&place.key) {
            return Ok((vec![place.key.clone()], Tally::default()));
        }
        let mut filter = PathFilter::new(&place.key, exclude)?;
        let folder = literal_folder(&place.key);
        let prefix = if folder.is_empty() {
            None
        } else {
            Some(path(folder)?)
        };
        let mut listed = self.store.list(prefix.as_ref());
        let (mut seen, mut keys) = (0_usize, Vec::new());
        while let Some(entry) = unless_cancelled(cancel, listed.next()).await? {
            let entry = entry.map_err(|error| self.error(&error).context(format!("list `{folder}/`")))?;
            seen += 1;
            if seen > MOST_OBJECTS {
                let message = format!(
                    "`{}` has more than {MOST_OBJECTS} objects below `{folder}/`",
                    place.bucket
                );
                return Err(Error::input(message).hint("name a folder in the glob"));
            }
            let key: &str = entry.location.as_ref();
            if filter.takes(key) {
                keys.push(key.to_owned());
            }
        }
        let tally = filter.tally();
        if keys.is_empty() {
            let message = format!(
                "`{}` does not match any of the {} below `{folder}/`{}",
                place.key,
                counted(seen, "object"),
                tally.message(),
            );
            return Err(Error::input(message)
                .hint("`*` matches within a folder, `**` as a whole part matches folders"));
        }
        keys.sort();
        Ok((keys, tally))
    }

    /// Asks for an object from byte `from` on, of the version with that tag where there is one.
    pub async fn open(&self, key: &str, from: u64, etag: Option<&str>) -> Result<Answer, Failure> {
        let options = GetOptions {
            range: (from > 0).then_some(GetRange::Offset(from)),
            if_match: etag.filter(|_| from > 0).map(str::to_owned),
            ..GetOptions::default()
        };
        let result = match self.store.get_opts(&path(key)?, options).await {
            Ok(result) => result,
            Err(object_store::Error::Precondition { .. }) => {
                return Err(Failure::Stale(
                    "the object changed during the download".to_owned(),
                ));
            }
            // Out of range, or a server without ranges: distinguished from the rest by asking from the start.
            Err(error @ object_store::Error::Generic { .. }) if from > 0 && !is_passing(&error) => {
                return Err(Failure::Stale(
                    "the bucket did not resume the download from where it stopped".to_owned(),
                ));
            }
            Err(error) => return Err(Failure::Final(self.error(&error))),
        };
        if result.range.start != from {
            let start = result.range.start;
            return Err(Failure::Stale(format!(
                "the bucket sent the bytes from {start} on when asked for those from {from} on"
            )));
        }
        if let (true, Some(etag), Some(found)) = (from > 0, etag, &result.meta.e_tag)
            && etag != found
        {
            return Err(Failure::Stale(
                "the object changed during the download".to_owned(),
            ));
        }
        Ok(Answer {
            from,
            total: Some(result.meta.size),
            etag: result.meta.e_tag.clone().filter(|etag| !etag.starts_with("W/")),
            ends: true,
            body: Body::Bucket(result.into_stream()),
        })
    }

    fn error(&self, error: &object_store::Error) -> Error {
        use object_store::Error as Fault;
        if let Some(later) = find::<Later>(error) {
            return Error::environment(later.to_string()).hint(
                "run the command again then: the bytes downloaded so \
                 far are kept",
            );
        }
        match error {
            Fault::NotFound { path, .. } => {
                Error::input(format!("there is no object `{path}`")).hint("check bucket and key")
            }
            Fault::PermissionDenied { path, .. } | Fault::Unauthenticated { path, .. } => {
                Error::environment(format!("access to `{path}` was denied: {}", web::cause(error)))
                    .hint(self.credentials)
            }
            _ => Error::environment(explained(error)).hint(format!(
                "{}; {}",
                self.credentials,
                web::NO_NETWORK
            )),
        }
    }
}

impl Cloud {
    fn credentials(self) -> &'static str {
        match self {
            Self::S3 => {
                "credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and \
                 AWS_ENDPOINT_URL (profiles in files are not read: `aws configure export-credentials --format env`); a \
                 public bucket needs AWS_SKIP_SIGNATURE=true"
            }
            Self::Gcs => {
                "credentials come from GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT; a public bucket needs \
                 GOOGLE_SKIP_SIGNATURE=true"
            }
            Self::Azure => {
                "credentials come from AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or \
                 AZURE_STORAGE_SAS_KEY; a public container needs AZURE_SKIP_SIGNATURE=true"
            }
        }
    }

    /// Which server the settings name, where they name one: the same bucket is another one there.
    pub fn endpoint(self, settings: &Settings) -> String {
        let names: &[&str] = match self {
            Self::S3 => &["aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3"],
            Self::Gcs => &["google_base_url"],
            Self::Azure => &[
                "azure_storage_account_name",
                "azure_storage_endpoint",
                "azure_endpoint",
            ],
        };
        let values = names.iter().filter_map(|name| settings.buckets.get(*name));
        values.map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// The settings that a store knows; the others are ignored.
fn known<K: FromStr>(buckets: &BTreeMap<String, String>, prefix: &str) -> Vec<(K, String)> {
    let mine = buckets.iter().filter(|(name, _)| name.starts_with(prefix));
    mine.filter_map(|(name, value)| Some((name.parse().ok()?, value.clone())))
        .collect()
}

fn path(key: &str) -> Result<Path> {
    Path::parse(key).map_err(|error| {
        Error::input(format!("read `{key}` as a key: {}", web::cause(&error)))
            .hint("a key has no empty, `.` or `..` parts")
    })
}

/// The store's own words, and the cause where they leave it out.
pub(crate) fn explained(error: &object_store::Error) -> String {
    let (text, cause) = (error.to_string(), web::cause(error));
    if text.contains(&cause) {
        text
    } else {
        format!("{text}: {cause}")
    }
}

/// The error of that type that another one came of.
fn find<T: std::error::Error + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// Whether a request failed for reasons that pass: the network's, or the server's for now. The library's own type, which
/// would say so, is not public; its text has the status.
fn is_passing(error: &object_store::Error) -> bool {
    let text = error.to_string();
    let status = |start: &str| text.contains(&format!("status code: {start}"));
    find::<HttpError>(error).is_some() || status("5") || status("429") || status("408")
}

/// A server that wants to be left alone for longer than we wait.
#[derive(Debug)]
struct Later {
    host: String,
    status: u16,
    wait: Duration,
}

impl std::fmt::Display for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, status, wait } = self;
        write!(
            f,
            "`{host}` answered {status} and asks to retry in {} s",
            wait.as_secs()
        )
    }
}

impl std::error::Error for Later {}

/// A client that waits for as long as a server asks for (`Retry-After`), which the stores do not: what they wait before
/// the next attempt comes on top of it.
#[derive(Debug)]
struct Patient {
    client: reqwest::Client,
    longest_wait: Duration,
}

impl Patient {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let response = HttpService::call(&self.client, request).await?;
        let status = response.status().as_u16();
        if matches!(status, 408 | 429 | 500..=599)
            && let Some(wait) = web::retry_after(response.headers())
        {
            if wait > self.longest_wait {
                return Err(HttpError::new(
                    HttpErrorKind::Unknown,
                    Later { host, status, wait },
                ));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(response)
    }
}

impl HttpService for Patient {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.answer(request))
    }
}

/// Gives the stores our client.
struct Connector {
    settings: Settings,
    /// The timeout that we set: another one is of the stores' making, for asking the machine who it is.
    usual: Option<String>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let timeout = if options.get_config_value(&ClientConfigKey::ConnectTimeout) == self.usual {
            self.settings.connect_timeout
        } else {
            METADATA_TIMEOUT
        };
        match web::client(&self.settings, timeout, http.as_deref() != Some("true")) {
            Ok(client) => Ok(HttpClient::new(Patient {
                client,
                longest_wait: self.settings.longest_wait,
            })),
            Err(error) => Err(object_store::Error::Generic {
                store: "HTTP",
                source: Box::new(error),
            }),
        }
    }
}
