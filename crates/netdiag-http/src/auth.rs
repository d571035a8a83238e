//! Who may ask: the address to listen on together with the secret that guards it.
//!
//! Invariant: an [`Exposure`] beyond loopback exists only with a token or with the explicit wish to have none.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderValue, header};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// What the name of a session's cookie begins with. Cookies are a host's and not a port's (RFC 6265 §8.5), so the rest of the
/// name is the token's: two servers of one host do not overwrite each other's.
const SESSION_COOKIE: &str = "netdiag_session_";

/// Characters of the rest: 32 bits tell the few tokens of one host apart, and tell nothing of them.
const NAME: usize = 8;

/// A bearer token (RFC 6750). Its value never appears in `Debug` output.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// Shortest token accepted: 16 characters hold at least 64 bits even in hexadecimal.
    const SHORTEST: usize = 16;

    /// Longest token accepted: one that surely fits into a request's headers.
    const LONGEST: usize = 1024;

    /// Reads a token from the first line of a file, leaving out white space around it.
    pub fn read(path: &Path) -> Result<Self, ExposureError> {
        let unusable = |why: String| ExposureError::TokenFile { path: path.to_owned(), why };
        // The first line is near the start, or too long.
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(2 * Self::LONGEST as u64).read_to_end(&mut start))
            .map_err(|error| unusable(error.to_string()))?;
        Self::try_new(&String::from_utf8_lossy(&start)).map_err(|why| unusable(why.to_owned()))
    }

    fn try_new(text: &str) -> Result<Self, &'static str> {
        let token = text.lines().next().unwrap_or_default().trim();
        if token.is_empty() {
            return Err("the first line is empty");
        }
        if token.len() < Self::SHORTEST {
            return Err("the token is shorter than 16 characters");
        }
        if token.len() > Self::LONGEST {
            return Err("the token is longer than 1024 characters");
        }
        // RFC 6750 §2.1, b64token; more would not survive an HTTP header.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(allowed) {
            return Err("the token has characters other than A-Z a-z 0-9 - . _ ~ + / =");
        }
        Ok(Self(token.as_bytes().to_vec()))
    }

    /// The `Authorization` header that shows it.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", &self.0[..]].concat()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether `given` is this token.
    pub fn is(&self, given: &str) -> bool {
        bool::from(given.as_bytes().ct_eq(&self.0))
    }

    /// What a browser keeps instead of the token, as the name and the value of a cookie: HMAC-SHA256 (RFC 2104) of fixed texts
    /// under it, in hexadecimal. They tell nothing of the token, are the same after a restart, and end with the token.
    pub fn session(&self) -> (String, String) {
        let name = self.digest(b"netdiag dashboard session name");
        let name = SESSION_COOKIE.to_owned() + name.get(..NAME).unwrap_or_default();
        (name, self.digest(b"netdiag dashboard session"))
    }

    fn digest(&self, text: &[u8]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            // HMAC takes keys of any length.
            return String::new();
        };
        mac.update(text);
        let digest = mac.finalize().into_bytes();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a `Cookie` header (RFC 6265 §4.2) carries the session of this token.
    pub(crate) fn admits_session(&self, headers: &HeaderMap) -> bool {
        let (wanted, session) = self.session();
        let cookies =
            headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|value| value.split(';'));
        !session.is_empty()
            && cookies.any(|cookie| {
                let given = cookie.trim().split_once('=');
                given.is_some_and(|(name, value)| {
                    name == wanted && bool::from(value.as_bytes().ct_eq(session.as_bytes()))
                })
            })
    }

    /// Whether an `Authorization` header carries this token.
    pub(crate) fn admits(&self, header: Option<&[u8]>) -> bool {
        let Some((scheme, given)) = header.and_then(|header| header.split_at_checked(7)) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(given.ct_eq(&self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where to listen, and what a client must show.
#[derive(Clone, Debug)]
pub struct Exposure {
    listen: SocketAddr,
    token: Option<Token>,
}

/// Why a server may not be exposed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExposureError {
    /// An address others can reach, and nothing that keeps them out.
    #[error(
        "listening on {0} lets everyone on the network ask: give --auth-token-file, or --no-auth if that is meant"
    )]
    Open(SocketAddr),
    /// Both a token and none.
    #[error("--auth-token-file and --no-auth contradict each other: give one of them")]
    Contradiction,
    /// The token cannot be used.
    #[error(
        "token file {path}: {why}; `openssl rand -hex 32 > FILE` makes a good one",
        path = path.display()
    )]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Exposure {
    /// Loopback needs nothing; any other address needs a token or `no_auth`.
    pub fn try_new(
        listen: SocketAddr,
        token: Option<Token>,
        no_auth: bool,
    ) -> Result<Self, ExposureError> {
        match (&token, no_auth) {
            (Some(_), true) => Err(ExposureError::Contradiction),
            (None, false) if !listen.ip().to_canonical().is_loopback() => {
                Err(ExposureError::Open(listen))
            }
            _ => Ok(Self { listen, token }),
        }
    }

    /// The address to listen on.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Whether everyone who can connect may ask.
    pub fn is_open(&self) -> bool {
        self.token.is_none()
    }

    /// What a client must show.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Only this host can connect, so a foreign `Host` header can only come from a page in its browser whose name was
    /// made to point here (DNS rebinding).
    pub(crate) fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn nothing_is_exposed_by_accident() {
        let check = |listen: &str, token: bool, no_auth, accepted| {
            let token = token.then(|| Token::try_new(SECRET).expect("token"));
            let result = Exposure::try_new(listen.parse().expect("address"), token, no_auth);
            assert_eq!(result.is_ok(), accepted, "{listen}");
        };
        check("127.0.0.1:9000", false, false, true);
        check("[::1]:9000", false, false, true);
        check("[::ffff:127.0.0.1]:9000", false, false, true);
        check("0.0.0.0:9000", false, false, false);
        check("[::]:9000", false, false, false);
        check("192.0.2.1:9000", true, false, true);
        check("192.0.2.1:9000", false, true, true);
        check("127.0.0.1:9000", true, true, false);
    }

    #[test]
    fn only_the_token_itself_is_admitted() {
        let token = Token::try_new(&format!(" {SECRET}\n")).expect("token");
        let check = |header: Option<&str>, admitted| {
            assert_eq!(token.admits(header.map(str::as_bytes)), admitted, "{header:?}");
        };
        check(None, false);
        check(Some(""), false);
        check(Some("Bearer"), false);
        check(Some("Bearer "), false);
        check(Some("Bearer 0123456789abcde"), false);
        check(Some("Bearer 0123456789abcdef"), true);
        check(Some("bearer 0123456789abcdef"), true);
        check(Some("Bearer 0123456789abcdef0"), false);
        check(Some("Basic 0123456789abcdef"), false);
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn a_session_stands_for_its_token_alone() {
        let token = Token::try_new(SECRET).expect("token");
        let other = Token::try_new("0123456789abcdeg").expect("token");
        let check = |cookies: &str, admitted| {
            let headers =
                HeaderMap::from_iter([(header::COOKIE, cookies.parse().expect("header"))]);
            assert_eq!(token.admits_session(&headers), admitted, "{cookies}");
        };
        let (name, session) = token.session();
        let (other_name, other_session) = other.session();
        assert!(session.len() == 64 && !session.contains(SECRET));
        assert_ne!(name, other_name);
        check(&format!("{name}={session}"), true);
        check(&format!("a=b; {name}={session}; c"), true);
        check(&format!("{name}={SECRET}"), false);
        check(&format!("{name}={other_session}"), false);
        check(&format!("{other_name}={session}"), false);
        check(&format!("x{name}={session}"), false);
        check(&format!("{name}="), false);
        assert!(!token.admits_session(&HeaderMap::new()));
        assert!(token.is(SECRET) && !token.is("") && !token.is("0123456789abcdeg"));
    }

    #[test]
    fn an_unusable_token_file_says_why() {
        let folder = tempfile::tempdir().expect("folder");
        let check = |content: &str, why: &str| {
            let path = folder.path().join("token");
            std::fs::write(&path, content).expect("write");
            let error = Token::read(&path).expect_err(why).to_string();
            assert!(error.contains(why) && !error.contains("hunter"), "{error}");
        };
        check(" \n", "empty");
        check("hunter2", "shorter than 16");
        check("hunter two hunter two", "characters other than");
        check(&"hunter2".repeat(200), "longer than 1024");
        check("\nhunter2hunter2hunter2", "first line is empty");
        // What follows the first line is nobody's business.
        let path = folder.path().join("token");
        let mut content = format!("{SECRET}\n").into_bytes();
        content.extend(vec![0xff; 1 << 20]);
        std::fs::write(&path, content).expect("write");
        let token = Token::read(&path).expect("the first line");
        assert!(token.admits(Some(format!("Bearer {SECRET}").as_bytes())));
        assert!(
            Token::read(Path::new("/no/such"))
                .expect_err("absent")
                .to_string()
                .contains("/no/such")
        );
    }
}
