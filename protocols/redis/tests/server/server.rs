//! A server of the test's own, and a client without knowledge.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol_redis::command::Table;
use protocol_redis::reply::{Scan, Scanner, write};

/// A redis-server in a temporary folder, which ends with the test.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--databases", "16", "--dir"])
            .arg(folder.path())
            .arg("--unixsocket")
            .arg(&socket)
            // Often: clients that wait are looked at that often.
            .args(["--notify-keyspace-events", "KEA", "--hz", "500"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let server = Self {
            child,
            socket,
            _folder: folder,
        };
        let started = Instant::now();
        while UnixStream::connect(&server.socket).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "redis-server does not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Client {
            stream,
            input: Vec::new(),
        }
    }

    pub(crate) fn table(&self) -> Table {
        Table::from_reply(&self.connect().call(&[b"COMMAND"])).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection.
pub(crate) struct Client {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply, or what has come when the server has closed the connection.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Scan::End(end) = Scanner::new().scan(&self.input).unwrap() {
                let rest = self.input.split_off(end);
                return std::mem::replace(&mut self.input, rest);
            }
            let mut block = [0; 1 << 16];
            match self.stream.read(&mut block).unwrap() {
                0 => return std::mem::take(&mut self.input),
                len => self.input.extend_from_slice(&block[..len]),
            }
        }
    }

    pub(crate) fn call(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write::command(&mut bytes, args);
        self.send(&bytes);
        self.reply()
    }

    /// The server's version: its first number.
    pub(crate) fn version(&mut self) -> u32 {
        let info = show(&self.must("INFO server"));
        let (_, version) = info.split_once("redis_version:").unwrap();
        version.split('.').next().unwrap().parse().unwrap()
    }

    /// A call that must succeed.
    pub(crate) fn must(&mut self, line: &str) -> Vec<u8> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let reply = self.call(&args);
        assert!(reply[0] != b'-', "{line}: {}", show(&reply));
        reply
    }
}

pub(crate) fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Numbers that look random and are the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
