//! A web server on loopback that misbehaves on request. For tests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    /// Sent in chunks, whose end can be told.
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
    requests: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Answers every request as `handler` says.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            url: format!("http://{address}"),
            requests: Arc::default(),
            sent: Arc::default(),
            ended: Arc::default(),
        };
        let handler = Arc::new(handler);
        let (requests, sent, ended) = (server.requests.clone(), server.sent.clone(), server.ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (handler, requests, sent, ended) =
                    (handler.clone(), requests.clone(), sent.clone(), ended.clone());
                std::thread::spawn(move || {
                    let Some(mut request) = read(&stream) else { return };
                    {
                        let mut requests = requests.lock().unwrap();
                        request.number = requests.len();
                        requests.push(request.clone());
                    }
                    // That the client goes away is its right.
                    let _ = write(&stream, &handler(&request), &sent, &ended);
                });
            }
        });
        server
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Bytes of bodies sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut parts = first.split(' ');
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request {
        number: 0,
        method,
        target,
        headers,
    })
}

fn write(mut stream: &TcpStream, reply: &Reply, sent: &AtomicU64, ended: &AtomicBool) -> std::io::Result<()> {
    std::thread::sleep(reply.delay);
    let mut head = format!("HTTP/1.1 {} Because\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if let Some(length) = reply.length {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
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
        sent.fetch_add(piece.len() as u64, Ordering::AcqRel);
        std::thread::sleep(reply.pace);
    }
    if reply.chunked && end == reply.body.len() {
        stream.write_all(b"0\r\n\r\n")?;
    }
    while reply.stall.is_some() && !ended.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.flush()
}
