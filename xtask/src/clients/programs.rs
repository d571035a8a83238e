//! The clients and the servers that they ask: packages of PyPI and npm, kept where builds are, and processes.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::Told;
use crate::command;

/// What is installed, of the series that was current when this was written. The AI SDK is the newest that runs on Node.js 20.
const OPENAI: &[&str] = &["openai~=2.0"];
const LLAMA: &[&str] = &["llama-cpp-python[server]~=0.3", "gguf~=0.17", "numpy"];
const AI: &[&str] = &["ai@^6", "@ai-sdk/openai-compatible@^2"];

/// For a server to answer: llama.cpp reads its model first.
const PATIENCE: Duration = Duration::from_secs(60);

/// The clients, installed.
pub(super) struct Clients {
    python: PathBuf,
    /// With the AI SDK and the program that uses it.
    node: PathBuf,
}

type Ask<'a> = Box<dyn Fn(&str, &str, &str) -> anyhow::Result<Vec<Told>> + 'a>;

impl Clients {
    pub(super) fn install() -> anyhow::Result<Self> {
        command::ensure_debian(&[("node", "nodejs"), ("npm", "npm"), ("curl", "curl")])?;
        let python = command::python_with("clients", OPENAI)?;
        let folder = crate::target_directory().join("clients-npm");
        std::fs::create_dir_all(&folder)?;
        let path = folder.to_str().context("the target folder's path is not UTF-8")?;
        let quiet = ["install", "--prefix", path, "--no-audit", "--no-fund", "--loglevel=error"];
        command::output("npm", &[&quiet[..], AI].concat())?;
        // It finds its packages beside itself.
        let program = crate::root().join("xtask/src/clients/ai.mjs");
        std::fs::copy(program, folder.join("ai.mjs"))?;
        Ok(Self { python, node: folder })
    }

    /// Each by its name.
    pub(super) fn all(&self) -> [(&'static str, Ask<'_>); 3] {
        let lines =
            |mut command: Command, arguments: [&str; 3]| told(&output(command.args(arguments))?);
        [
            (
                "openai (Python)",
                Box::new(move |url, model, tools| {
                    let mut python = Command::new(&self.python);
                    python.arg(crate::root().join("xtask/src/clients/python.py"));
                    lines(python, [url, model, tools])
                }),
            ),
            (
                "AI SDK (Node.js)",
                Box::new(move |url, model, tools| {
                    let mut node = Command::new("node");
                    node.arg(self.node.join("ai.mjs"));
                    lines(node, [url, model, tools])
                }),
            ),
            ("curl -N", Box::new(|url, model, _| curl(url, model))),
        ]
    }
}

/// A server that is running; ended when dropped.
pub(super) struct Server {
    child: Child,
    pub(super) url: String,
}

impl Server {
    /// The demo engine.
    pub(super) fn demo() -> anyhow::Result<Self> {
        let example = ["build", "--quiet", "--package", "netdiag-lab", "--example", "demo_engine"];
        command::run("cargo", &example)?;
        let program = crate::target_directory().join("debug/examples/demo_engine");
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]);
        Self::told("the demo engine", command)
    }

    /// llama.cpp, by the server of its Python package.
    pub(super) fn llama(model: Option<&Path>) -> anyhow::Result<Self> {
        let python = command::python_with("clients", LLAMA)?;
        let tiny = crate::target_directory().join("clients-tiny.gguf");
        let model = match model {
            Some(model) => model,
            None => {
                let writer = crate::root().join("xtask/src/clients/tiny_model.py");
                output(Command::new(&python).arg(writer).arg(&tiny))?;
                &tiny
            }
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(python);
        command.args(["-m", "llama_cpp.server", "--host", "127.0.0.1", "--port"]);
        command.arg(port.to_string()).arg("--model").arg(model);
        command.args(["--model_alias", "tiny", "--n_ctx", "2048", "--n_threads", "1"]);
        command.args(["--chat_format", "chatml-function-calling", "--verbose", "False"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().context("cannot run llama.cpp's server")?;
        let mut server = Self { child, url: format!("http://127.0.0.1:{port}") };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("llama.cpp's server ended ({status})");
            }
            ensure!(start.elapsed() < PATIENCE, "llama.cpp's server does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// A gateway before another server.
    pub(super) fn gateway(engine: &Self, arguments: &[&str]) -> anyhow::Result<Self> {
        command::run("cargo", &["build", "--quiet", "--package", "netdiag"])?;
        let mut command = Command::new(crate::target_directory().join("debug/netdiag"));
        command.args(["gateway", "--listen", "127.0.0.1:0", "--upstream", &engine.url]);
        command.args(["--log-level", "warn"]).args(arguments);
        Self::told("the gateway", command)
    }

    /// Starts a program that says its address.
    fn told(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().with_context(|| format!("cannot run {name}"))?;
        let says = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut server = Self { child, url: String::new() };
        let mut lines = says.lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("http://"));
        let line = line.with_context(|| format!("{name} says no address"))?;
        let (_, rest) = line.split_once("http://").context("no address")?;
        let address = rest.split([' ', ';', '/']).next().unwrap_or_default();
        server.url = format!("http://{address}");
        // What it complains of is for whoever looks on.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A streamed chat by curl, its texts put together.
fn curl(url: &str, model: &str) -> anyhow::Result<Vec<Told>> {
    let body = json!({
        "model": model, "temperature": 0, "seed": 7, "max_tokens": 90, "stream": true,
        "messages": [{"role": "user", "content": "Tell me about the wire."}],
    });
    let mut curl = Command::new("curl");
    curl.args(["-N", "--silent", "--show-error", "--fail"]);
    curl.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
    let stream = output(curl.arg(format!("{url}/v1/chat/completions")))?;
    let (mut text, mut finish, mut is_done) = (String::new(), Value::Null, false);
    for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            is_done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).with_context(|| data.to_owned())?;
        let choice = &chunk["choices"][0];
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
    }
    let answer = json!({"text": text, "finish": finish, "done": is_done});
    Ok(vec![Told { how: "streamed".to_owned(), answer: answer.to_string() }])
}

/// What a client has printed.
fn told(output: &str) -> anyhow::Result<Vec<Told>> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let how = value["how"].as_str().with_context(|| line.to_owned())?;
        Ok(Told { how: how.to_owned(), answer: value["answer"].to_string() })
    };
    output.lines().map(line).collect()
}

/// What a program prints; an error with all that it says if it fails.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {complaint}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
