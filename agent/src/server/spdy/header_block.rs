//! Header blocks: names and values, compressed with one zlib stream per direction and a dictionary both sides know.
//!
//! In: a block of a SYN_STREAM or HEADERS frame. Out: its headers; for answers an empty block.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Bytes of all headers of one block, decompressed: what is larger is no header of a port or a stream type.
const LARGEST: usize = 64 << 10;

/// Words of the dictionary that stand there with their length before them.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The rest of the dictionary, as the protocol has it.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// Headers of a stream, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// Reads the blocks of one direction, in their order.
pub struct Reader {
    zlib: Decompress,
}

/// Writes the blocks of the other direction.
pub struct Writer {
    zlib: Compress,
}

// === impl Headers ===

impl Headers {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn parse(block: &[u8]) -> Option<Self> {
        let mut rest = block;
        let count = take_number(&mut rest)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut rest)?;
            headers.push((name.to_ascii_lowercase(), take_text(&mut rest)?));
        }
        rest.is_empty().then_some(Self(headers))
    }
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS {
        // No word is longer than a byte can say.
        bytes.extend_from_slice(&[0, 0, 0, word.len() as u8]);
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
}

// === impl Reader ===

impl Reader {
    pub fn new() -> Self {
        Self { zlib: Decompress::new(true) }
    }

    /// # Errors
    /// When the block is not one; the connection cannot go on then, since its zlib state is lost.
    pub fn read(&mut self, block: &[u8]) -> io::Result<Headers> {
        let bytes = self.inflate(block)?;
        Headers::parse(&bytes).ok_or_else(|| bad("malformed headers"))
    }

    fn inflate(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            if out.len() == out.capacity() {
                out.reserve(4096);
            }
            let (taken, made) = (self.zlib.total_in(), self.zlib.total_out());
            let outcome = self.zlib.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.zlib.total_in() - taken).unwrap_or(rest.len());
            rest = rest.get(taken..).unwrap_or_default();
            match outcome {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|_| bad("unknown dictionary"))?;
                }
                Err(_) => return Err(bad("headers that cannot be decompressed")),
                Ok(Status::StreamEnd) if !rest.is_empty() => return Err(bad("headers beyond their end")),
                Ok(_) => {
                    if out.len() > LARGEST {
                        return Err(bad("headers that are too large"));
                    }
                    let stuck = taken == 0 && self.zlib.total_out() == made;
                    if rest.is_empty() && out.len() < out.capacity() || stuck {
                        return Ok(out);
                    }
                }
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    pub fn new() -> io::Result<Self> {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).map_err(|_| bad("no dictionary"))?;
        Ok(Self { zlib })
    }

    /// A block without headers.
    pub fn empty(&mut self) -> io::Result<Vec<u8>> {
        self.deflate(&0_u32.to_be_bytes())
    }

    fn deflate(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        // A few bytes more than what is put in: markers of the flush and, once, the head of the stream.
        let mut out = Vec::with_capacity(block.len() + 64);
        self.zlib
            .compress_vec(block, &mut out, FlushCompress::Sync)
            .map_err(|_| bad("headers that cannot be compressed"))?;
        Ok(out)
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {what}"))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A block as a client writes it.
    pub fn block(writer: &mut Writer, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        writer.deflate(&plain).unwrap()
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        // Its checksum stands in every SPDY/3 stream.
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((b << 16) | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_are_read_in_their_order_with_one_state() {
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::new());
        for port in ["80", "8080", "80"] {
            let sent = block(&mut writer, &[("streamType", "data"), ("port", port)]);
            let headers = reader.read(&sent).unwrap();
            assert_eq!((headers.get("streamtype"), headers.get("port")), (Some("data"), Some(port)));
        }
        let none = writer.empty().unwrap();
        assert_eq!(reader.read(&none).unwrap(), Headers::default());
    }

    #[test]
    fn bad_blocks_are_refused() {
        assert!(Reader::new().read(b"no zlib at all").is_err());
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::new());
        let lying = writer.deflate(&[0, 0, 0, 9, 0, 0, 0, 200, b'a']).unwrap();
        assert!(reader.read(&lying).is_err());
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::new());
        let huge = "x".repeat(LARGEST);
        let bomb = {
            let mut out = Vec::with_capacity(LARGEST);
            let mut plain = vec![0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 1, 0, 0];
            plain.extend_from_slice(huge.as_bytes());
            writer.zlib.compress_vec(&plain, &mut out, FlushCompress::Sync).unwrap();
            out
        };
        assert!(bomb.len() < 1024, "a small block");
        assert!(reader.read(&bomb).unwrap_err().to_string().contains("too large"));
    }
}
