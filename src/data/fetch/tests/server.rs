//! A web server on loopback that misbehaves on request. For tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate for 127.0.0.1, of 2020 to 2120, signed by itself. It protects nothing: its key is below.
///
/// Made with OpenSSL 3.0: `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost`,
/// then `openssl ca -selfsign -startdate 20200101000000Z -enddate 21200101000000Z` with `x509_extensions` of
/// `subjectAltName=IP:127.0.0.1` and `basicConstraints=critical,CA:FALSE`.
pub const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBWDCB/6ADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowFDESMBAGA1UEAwwJ
bG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE16936tNAtAbQhwrj
51RDorLHqjY5VmVs9Hk9374h4kgNrZbuv9cO3YnGa2jmlDjyh6S2J4XKb0g80E+k
TA8xWKNAMD4wDwYDVR0RBAgwBocEfwAAATAMBgNVHRMBAf8EAjAAMB0GA1UdDgQW
BBTNqchSaT6RWOrX1aukSHFR0xSV2TAKBggqhkjOPQQDAgNIADBFAiBueSKzFwLT
phELk+rT/Vx1nxUYee+r0iuXeuYtWwg7MQIhAJA/aNU9QKbzn5T1R0kDfKHnqriT
uEYP8paALsHgZGSt
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/sdjxNicwmsOBHv4
SQEHNMj2BcMF+sgrSzpC4H8UrDWhRANCAATXr3fq00C0BtCHCuPnVEOisseqNjlW
ZWz0eT3fviHiSA2tlu6/1w7dicZraOaUOPKHpLYnhcpvSDzQT6RMDzFY
-----END PRIVATE KEY-----
";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// How many came before it.
    pub number: usize,
    /// `GET`
    pub method: String,
    /// What stands in the first line: path and query, from a client of a proxy the whole URL.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// As long as its `Content-Length` says.
    pub body: Arc<Vec<u8>>,
}

/// What is answered.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What `Content-Length` says; none is sent where there is none.
    pub length: Option<u64>,
    /// Bytes after which the connection is closed.
    pub cut: Option<usize>,
    /// Before the first byte.
    pub delay: Duration,
    /// Bytes after which nothing more comes, and the connection stays open.
    pub stall: Option<usize>,
    /// Between pieces of 16 KiB.
    pub pace: Duration,
    /// Sent in chunks, whose end is marked.
    pub chunked: bool,
}

impl Reply {
    /// An answer with a body and its length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: Vec::new(),
            length: Some(body.len() as u64),
            body,
            cut: None,
            delay: Duration::ZERO,
            stall: None,
            pace: Duration::ZERO,
            chunked: false,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// A redirect.
    pub fn to(target: &str) -> Self {
        Self::new(302, "").header("Location", target)
    }
}

/// Serves a file as a well-kept server does: ranges, validators.
pub fn file(request: &Request, content: &[u8], etag: Option<&str>) -> Reply {
    let total = content.len();
    let asked = request.headers.get("range").and_then(|range| {
        let start: usize = range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
        Some(start)
    });
    let same = match (request.headers.get("if-range"), etag) {
        (None, _) => true,
        (Some(wanted), Some(etag)) => wanted == etag,
        (Some(_), None) => false,
    };
    let reply = match asked.filter(|_| same) {
        Some(start) if start < total => Reply::new(206, &content[start..])
            .header("Content-Range", format!("bytes {start}-{}/{total}", total - 1)),
        Some(_) => Reply::new(416, "").header("Content-Range", format!("bytes */{total}")),
        None => Reply::new(200, content),
    };
    match etag {
        Some(etag) => reply.header("ETag", etag),
        None => reply,
    }
}

/// A server. It ends with the value.
pub struct Server {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    address: SocketAddr,
    log: Arc<Log>,
}

/// What a server and its threads share.
#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Request>>,
    sent: AtomicU64,
    ended: AtomicBool,
}

impl Server {
    /// Answers every request as `handler` says.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(handler, None)
    }

    /// [`Server::start`] behind TLS, with [`CERTIFICATE`].
    pub fn start_tls(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::listen(handler, Some(Arc::new(config)))
    }

    fn listen(
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Self {
            url: format!("{scheme}://{}", listener.local_addr().unwrap()),
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
        };
        let (handler, log) = (Arc::new(handler), server.log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if log.ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (handler, log, tls) = (handler.clone(), log.clone(), tls.clone());
                std::thread::spawn(move || {
                    // That the client goes away is its right.
                    let _ = match tls {
                        None => serve(stream, &*handler, &log).map(drop),
                        Some(tls) => serve(
                            StreamOwned::new(ServerConnection::new(tls).unwrap(), stream),
                            &*handler,
                            &log,
                        )
                        .and_then(|mut stream| {
                            stream.conn.send_close_notify();
                            stream.flush()
                        }),
                    };
                });
            }
        });
        server
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.requests.lock().unwrap().clone()
    }

    /// Bytes of bodies sent so far.
    pub fn sent(&self) -> u64 {
        self.log.sent.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.log.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve<S: Read + Write>(
    mut stream: S,
    handler: &dyn Fn(&Request) -> Reply,
    log: &Log,
) -> std::io::Result<S> {
    let Some(mut request) = read(&mut stream)? else {
        return Ok(stream);
    };
    {
        let mut requests = log.requests.lock().unwrap();
        request.number = requests.len();
        requests.push(request.clone());
    }
    write(&mut stream, &handler(&request), log)?;
    Ok(stream)
}

fn read(stream: &mut impl Read) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let Some(mut request) = parse(&String::from_utf8_lossy(&head)) else {
        return Ok(None);
    };
    let length = request
        .headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    request.body = Arc::new(body);
    Ok(Some(request))
}

fn parse(head: &str) -> Option<Request> {
    let mut lines = head.lines();
    let mut parts = lines.next()?.split(' ');
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Some(Request {
        number: 0,
        method,
        target,
        headers: headers.collect(),
        body: Arc::default(),
    })
}

fn write(stream: &mut impl Write, reply: &Reply, log: &Log) -> std::io::Result<()> {
    std::thread::sleep(reply.delay);
    let mut head = format!("HTTP/1.1 {} Because\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if reply.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if let Some(length) = reply.length {
        let _ = write!(head, "Content-Length: {length}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.flush()?;
    let end = reply.body.len().min(reply.cut.unwrap_or(usize::MAX));
    let end = end.min(reply.stall.unwrap_or(usize::MAX));
    for piece in reply.body[..end].chunks(16 << 10) {
        if reply.chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        }
        stream.write_all(piece)?;
        if reply.chunked {
            stream.write_all(b"\r\n")?;
        }
        stream.flush()?;
        log.sent.fetch_add(piece.len() as u64, Ordering::AcqRel);
        std::thread::sleep(reply.pace);
    }
    if reply.chunked && end == reply.body.len() {
        stream.write_all(b"0\r\n\r\n")?;
    }
    while reply.stall.is_some() && !log.ended.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.flush()
}
