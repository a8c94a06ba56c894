//! Files behind `http` and `https`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE, RETRY_AFTER,
    TRANSFER_ENCODING,
};
use reqwest::{Client, NoProxy, Proxy, Response, StatusCode, Url, redirect};

use super::answer::{Answer, Body, Failure};
use super::place::shown;
use super::settings::Settings;
use crate::error::{Error, Kind, Remedy, Result};

/// Redirects that are followed. As many as browsers' half; more is a loop.
const REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("mdlm/", env!("CARGO_PKG_VERSION"));

/// What to do when the network is not there.
pub(super) const NO_NETWORK: &str = "behind a proxy, set HTTPS_PROXY (and NO_PROXY); without network access, copy \
     the file to this machine and name it with `\"kind\": \"files\"`, or with `files` of a named corpus";

/// What to do where a server wants to know who asks.
const REFUSED: &str = "the server requires credentials, or refuses this address; for a file that needs an account, \
     download it by hand and name it with `\"kind\": \"files\"`";

/// The error of a network that does not answer.
pub(super) fn unreachable(message: impl Into<String>) -> Error {
    Error::environment(message)
        .hint(NO_NETWORK)
        .remedy(Remedy::Network)
}

/// Makes a proxy of a URL.
type Make = fn(&str) -> reqwest::Result<Proxy>;

/// A client for all of it: one TLS, one set of timeouts and proxies.
pub(super) fn client(settings: &Settings, connect_timeout: Duration, https_only: bool) -> Result<Client> {
    // reqwest takes the process's provider. A provider that is set already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    // What is hashed is what lies on the server.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .default_headers(headers)
        .connect_timeout(connect_timeout)
        .read_timeout(settings.idle_timeout)
        // The address may carry a signature, which the next host must not see.
        .referer(false)
        .redirect(redirect::Policy::custom(follow))
        // Of one file at a time, HTTP/2 has nothing to gain.
        .http1_only()
        .https_only(https_only)
        .no_proxy();
    let except = settings.proxies.except.as_deref().and_then(NoProxy::from_string);
    let proxies: [(&Option<String>, Make, &str); 2] = [
        (&settings.proxies.http, |url| Proxy::http(url), "HTTP_PROXY"),
        (&settings.proxies.https, |url| Proxy::https(url), "HTTPS_PROXY"),
    ];
    for (url, make, name) in proxies {
        let Some(url) = url else { continue };
        // curl takes a host without a scheme for an HTTP proxy.
        let url = if url.contains("://") {
            url.clone()
        } else {
            format!("http://{url}")
        };
        let proxy = if url.starts_with("http://") || url.starts_with("https://") {
            make(&url).ok()
        } else {
            None
        };
        let Some(proxy) = proxy else {
            return Err(Error::environment(format!(
                "use the proxy `{}` of {name} or ALL_PROXY",
                shown_proxy(&url)
            ))
            .hint("it has to be a URL of an HTTP proxy: `http://HOST:PORT`"));
        };
        builder = builder.proxy(proxy.no_proxy(except.clone()));
    }
    builder.build().map_err(|error| {
        Error::environment(format!("set up TLS: {}", cause(&error)))
            .hint("install the system's certificates (package `ca-certificates`), or set SSL_CERT_FILE to a file of \
                 certificates")
    })
}

/// A proxy without its user and password.
fn shown_proxy(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// A redirect that is not followed, and why.
#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match refuse(attempt.previous(), attempt.url()) {
        Some(refused) => attempt.error(refused),
        None => attempt.follow(),
    }
}

/// Why a redirect is not followed, if it is not: `previous` were asked so far.
fn refuse(previous: &[Url], next: &Url) -> Option<Refused> {
    if previous.len() > REDIRECTS {
        return Some(Refused(format!("redirected more than {REDIRECTS} times")));
    }
    let secure = previous.last().is_some_and(|url| url.scheme() == "https");
    if secure && next.scheme() != "https" {
        let (scheme, host) = (next.scheme(), next.host_str().unwrap_or_default());
        return Some(Refused(format!("redirected from https to {scheme}://{host}")));
    }
    None
}

/// Asks for a file from byte `from` on: of the version with that validator where there is one, else of whichever is
/// there.
pub(super) async fn open(
    client: &Client,
    url: &Url,
    token: Option<&str>,
    from: u64,
    etag: Option<&str>,
    settings: &Settings,
) -> Result<Answer, Failure> {
    let mut request = client.get(url.clone());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
        if let Some(etag) = etag {
            request = request.header(IF_RANGE, etag);
        }
    }
    let response = request
        .send()
        .await
        .map_err(|error| failure(&error, url, settings))?;
    let headers = response.headers();
    // A validator that is weak says of no two answers that they agree byte for byte.
    let found = headers
        .get(ETAG)
        .and_then(|value| value.to_str().ok())
        .filter(|etag| !etag.starts_with("W/"))
        .map(str::to_owned);
    match response.status() {
        StatusCode::OK => {
            let framed = headers.contains_key(TRANSFER_ENCODING);
            let total = if framed { None } else { content_length(headers) };
            Ok(Answer {
                from: 0,
                total,
                etag: found,
                // Else the end of the connection is taken for the end of the file, which a broken one has too.
                ends: framed || total.is_some(),
                body: Body::Web(response),
            })
        }
        StatusCode::PARTIAL_CONTENT if from > 0 => {
            let range = headers
                .get(CONTENT_RANGE)
                .and_then(|value| parse_range(value.to_str().ok()?));
            let Some((start, total)) = range else {
                return Err(Failure::Stale(
                    "the server sent a part of the file without saying which part".to_owned(),
                ));
            };
            if start != from {
                return Err(Failure::Stale(format!(
                    "the server sent the bytes from {start} on when asked for those from {from} on"
                )));
            }
            if let (Some(etag), Some(found)) = (etag, &found)
                && etag != found
            {
                return Err(Failure::Stale("the file changed during the download".to_owned()));
            }
            Ok(Answer {
                from,
                total,
                etag: found.or_else(|| etag.map(str::to_owned)),
                ends: true,
                body: Body::Web(response),
            })
        }
        StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Err(Failure::Stale(format!(
            "the server's file now ends before byte {from}"
        ))),
        _ => Err(refused(&response, settings)),
    }
}

/// What a status means that is not success.
pub(super) fn refused(response: &Response, settings: &Settings) -> Failure {
    let status = response.status();
    let host = response.url().host_str().unwrap_or_default();
    let message = format!("`{host}` answered {status}");
    match status.as_u16() {
        408 | 425 | 429 | 500 | 502 | 503 | 504 => {
            let wait = retry_after(response.headers());
            if let Some(wait) = wait
                && wait > settings.longest_wait
            {
                let message = format!("{message} and asks to retry in {} s", wait.as_secs());
                return Failure::Final(Error::environment(message).hint(
                    "run the command again then: the bytes \
                     downloaded so far are kept",
                ));
            }
            let hint = "the server is overloaded or limits the rate of requests: run the command again later; the \
                 bytes downloaded so far are kept";
            Failure::Passing(Error::environment(message).hint(hint), wait)
        }
        401 | 403 | 407 => Failure::Final(
            Error::environment(message)
                .hint(REFUSED)
                .remedy(Remedy::Credentials),
        ),
        404 | 410 => {
            let error = Error::input(message).hint("check the URL: the file may have moved");
            Failure::Final(error.remedy(Remedy::Reference))
        }
        _ => Failure::Final(Error::environment(message).hint(
            "open the URL in a browser to see what the server has \
             there",
        )),
    }
}

/// What an error of the client means.
pub(super) fn failure(error: &reqwest::Error, url: &Url, settings: &Settings) -> Failure {
    let host = url.host_str().unwrap_or_default();
    if let Some(refused) = refusal(error) {
        return Failure::Final(
            Error::environment(refused.to_string())
                .hint("open the URL in a browser to see where it redirects to, and use that URL"),
        );
    }
    if error.is_builder() {
        return Failure::Final(Error::input(cause(error)));
    }
    let message = if error.is_connect() && error.is_timeout() {
        format!("no connection to `{host}` within {:?}", settings.connect_timeout)
    } else if error.is_connect() {
        format!("cannot connect to `{host}`: {}", cause(error))
    } else if error.is_timeout() {
        format!("no data from `{host}` for {:?}", settings.idle_timeout)
    } else {
        format!("the connection to `{host}` broke: {}", cause(error))
    };
    Failure::Passing(unreachable(message), None)
}

fn refusal(error: &reqwest::Error) -> Option<&Refused> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        source = error.source();
    }
    None
}

/// The innermost error, which says what happened; those around it say that a request failed, and show its URL.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(reqwest::header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Start and total of `bytes 5-9/10` or `bytes 5-9/*`.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" {
        None
    } else {
        Some(total.parse().ok()?)
    };
    Some((start.trim().parse().ok()?, total))
}

/// The forms of a date in headers; all are GMT (RFC 9110, 5.6.7).
const HTTP_DATES: [&str; 3] = ["%a, %d %b %Y %T GMT", "%A, %d-%b-%y %T GMT", "%a %b %e %T %Y"];

/// `Retry-After`: seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let read = |form| DateTime::strptime(form, text).ok();
    let moment = Offset::UTC.to_timestamp(HTTP_DATES.into_iter().find_map(read)?);
    let wait = moment.ok()?.duration_since(Timestamp::now());
    Some(wait.try_into().unwrap_or_default())
}

/// Reads a small answer whole.
pub(super) async fn text(
    mut response: Response,
    longest: usize,
    settings: &Settings,
) -> Result<Vec<u8>, Failure> {
    let url = response.url().clone();
    let mut text = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(text),
            Ok(Some(bytes)) => text.extend_from_slice(&bytes),
            Err(error) => return Err(failure(&error, &url, settings)),
        }
        if text.len() > longest {
            let message = format!(
                "the answer of `{}` is longer than {longest} bytes",
                shown(url.as_str())
            );
            return Err(Failure::Final(Error::new(Kind::Environment, message)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_headers_are_read() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for faulty in [
            "",
            "bytes */10",
            "bytes 5/10",
            "5-9/10",
            "bytes 5-9",
            "bytes x-9/10",
            "bytes 5-9/x",
        ] {
            assert_eq!(parse_range(faulty), None, "{faulty}");
        }
    }

    #[test]
    fn retry_after_headers_are_read() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        for past in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(after(past), Some(Duration::ZERO), "{past}");
        }
        let soon = Timestamp::now() + Duration::from_secs(90);
        for form in HTTP_DATES {
            let wait = after(&soon.strftime(form).to_string()).unwrap().as_secs();
            assert!((80..=90).contains(&wait), "{form}: {wait}");
        }
        for faulty in [
            "soon",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(after(faulty), None, "{faulty}");
        }
    }

    #[test]
    fn proxy_is_shown_without_its_password() {
        assert_eq!(shown_proxy("socks5://me:secret@host:1"), "socks5://host:1");
        let settings = Settings {
            proxies: super::super::settings::Proxies {
                https: Some("socks5://me:secret@host:1".to_owned()),
                ..Default::default()
            },
            ..Settings::default()
        };
        let error = client(&settings, Duration::from_secs(1), false).unwrap_err();
        assert!(
            error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("secret"),
            "{error}"
        );
    }
}
