//! `top`: what the nodes of a hub do, as it happens.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_store::env::RealEnv;
use bytesize::ByteSize;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Style;
use ratatui::widgets::{Block, Paragraph, Row, Table};
use serde::Deserialize;

use crate::args::TopArgs;
use crate::client::Client;
use crate::output::Output;

const OVERVIEW: &str = "/api/ballast/v1/nodes/overview";
/// How often it asks.
const EVERY: Duration = Duration::from_secs(1);
/// Of a file's SHA-256 so much is shown.
const SHOWN_DIGITS: usize = 12;

/// What the hub says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Overview {
    nodes: Vec<Node>,
    swarms: Vec<Swarm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    name: String,
    site: String,
    rack: String,
    bytes: Bytes,
}

/// Bytes since the node's start.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Bytes {
    disk: u64,
    site: u64,
    peer: u64,
    hub: u64,
    upstream: u64,
    sent: u64,
}

impl Bytes {
    fn came(self) -> u64 {
        self.site + self.peer + self.hub + self.upstream
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Swarm {
    sha256: String,
    size: u64,
    whole: u32,
    fetching: u32,
    hosts: Vec<Host>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Host {
    node: String,
    held: u64,
    rate: u64,
    eta_ms: u64,
}

/// What is shown: the hub's words, and how fast it all is since the last ones.
#[derive(Default)]
struct Board {
    now: Overview,
    /// Bytes a second that each node takes and sends; not known from the first words alone.
    rates: BTreeMap<String, (u64, u64)>,
}

impl Board {
    /// The next words, so long after the last ones.
    fn next(&mut self, next: Overview, after: Duration) {
        let seconds = after.as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "shown")]
        #[expect(clippy::cast_sign_loss, reason = "a difference that is not negative")]
        let rate = |old: u64, new: u64| (new.saturating_sub(old) as f64 / seconds) as u64;
        let known: BTreeMap<&str, Bytes> =
            self.now.nodes.iter().map(|node| (node.name.as_str(), node.bytes)).collect();
        let rates = next.nodes.iter().filter_map(|node| {
            let old = known.get(node.name.as_str())?;
            let (came, sent) =
                (rate(old.came(), node.bytes.came()), rate(old.sent, node.bytes.sent));
            Some((node.name.clone(), (came, sent)))
        });
        self.rates = rates.collect();
        self.now = next;
    }

    /// Bytes a second that a node takes: as seen, or else as the hub sees it in its swarms.
    fn taken(&self, name: &str) -> u64 {
        let hosts = self.now.swarms.iter().flat_map(|swarm| &swarm.hosts);
        let told = || hosts.filter(|host| host.node == name).map(|host| host.rate).sum();
        self.rates.get(name).map_or_else(told, |(came, _)| *came)
    }

    /// How much faster all that came is than if the hub had sent it all: one where it did.
    fn speed_up(&self) -> Option<f64> {
        let all = |of: fn(Bytes) -> u64| self.now.nodes.iter().map(|node| of(node.bytes)).sum();
        let (came, hub): (u64, u64) = (all(Bytes::came), all(|bytes| bytes.hub));
        #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
        let times = came as f64 / hub as f64;
        (hub > 0).then_some(times)
    }

    fn title(&self) -> String {
        let rate: u64 = self.now.nodes.iter().map(|node| self.taken(&node.name)).sum();
        let speed_up = self.speed_up().map(|times| format!(", {times:.1} times what the hub sent"));
        format!(
            "{} nodes take {}/s{}   (q: quit)",
            self.now.nodes.len(),
            size(rate),
            speed_up.unwrap_or_default()
        )
    }

    fn swarm_rows(&self) -> Vec<Vec<String>> {
        let row = |swarm: &Swarm| {
            let slowest = swarm.hosts.first();
            let last = swarm.hosts.iter().map(|host| host.eta_ms).max().unwrap_or(0);
            vec![
                swarm.sha256.chars().take(SHOWN_DIGITS).collect(),
                size(swarm.size),
                swarm.whole.to_string(),
                swarm.fetching.to_string(),
                slowest.map_or_else(String::new, |host| {
                    let percent = host.held * 100 / swarm.size.max(1);
                    format!("{} {percent} % at {}/s", host.node, size(host.rate))
                }),
                match last {
                    0 => String::new(),
                    ms => format!("{} s", ms.div_ceil(1000)),
                },
            ]
        };
        self.now.swarms.iter().map(row).collect()
    }

    fn node_rows(&self) -> Vec<Vec<String>> {
        let row = |node: &Node| {
            let sent = self.rates.get(&node.name).map(|(_, sent)| format!("{}/s", size(*sent)));
            let bytes = node.bytes;
            let place = [node.site.as_str(), node.rack.as_str()].join(" ");
            let mut row = vec![
                node.name.clone(),
                place.trim().to_owned(),
                format!("{}/s", size(self.taken(&node.name))),
                sent.unwrap_or_default(),
            ];
            let sources = [bytes.disk, bytes.site, bytes.peer, bytes.hub, bytes.upstream];
            row.extend(sources.into_iter().chain([bytes.sent]).map(size));
            row
        };
        self.now.nodes.iter().map(row).collect()
    }
}

const SWARM_HEADS: [&str; 6] = ["file", "size", "have it", "fetch it", "slowest", "done in"];
const NODE_HEADS: [&str; 10] =
    ["node", "place", "in", "out", "disk", "site", "peers", "hub", "upstream", "sent"];

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// `ballast top`.
pub(crate) fn top(args: &TopArgs, output: &mut Output) -> Result<ExitCode> {
    let client = Client::new(&args.remote);
    if args.remote.json {
        output.json(&client.call("GET", OVERVIEW, None)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut board = Board::default();
    board.next(ask(&client)?, EVERY);
    if args.once || !std::io::stdout().is_terminal() {
        output.table(&SWARM_HEADS, &board.swarm_rows())?;
        output.line("")?;
        output.table(&NODE_HEADS, &board.node_rows())?;
        return Ok(ExitCode::SUCCESS);
    }
    ratatui::run(|terminal| {
        watch(&client, board, |board| {
            terminal.draw(|frame| draw(frame, board)).map(drop).context("drawing")
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

fn ask(client: &Client) -> Result<Overview> {
    let answer = client.call("GET", OVERVIEW, None)?;
    serde_json::from_value(answer).context("the hub answered something else")
}

/// Shows it again and again, until somebody has seen enough.
fn watch(
    client: &Client,
    mut board: Board,
    mut show: impl FnMut(&Board) -> Result<()>,
) -> Result<()> {
    let env = RealEnv::shared();
    let mut asked = env.monotonic();
    loop {
        show(&board)?;
        if event::poll(EVERY.saturating_sub(env.monotonic().saturating_sub(asked)))
            .context("reading the keyboard")?
        {
            if is_enough(&event::read().context("reading the keyboard")?) {
                return Ok(());
            }
            continue;
        }
        let next = ask(client)?;
        let now = env.monotonic();
        board.next(next, now.saturating_sub(asked));
        asked = now;
    }
}

fn is_enough(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    key.kind == KeyEventKind::Press && (is_interrupt || is_quit)
}

fn draw(frame: &mut Frame<'_>, board: &Board) {
    let swarms = u16::try_from(board.now.swarms.len()).unwrap_or(u16::MAX).clamp(1, 8);
    let [head, above, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(swarms + 3),
        Constraint::Min(4),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(board.title()), head);
    frame.render_widget(table("swarms", &SWARM_HEADS, board.swarm_rows()), above);
    frame.render_widget(table("nodes", &NODE_HEADS, board.node_rows()), below);
}

fn table<'a>(title: &'a str, heads: &[&'a str], rows: Vec<Vec<String>>) -> Table<'a> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
        cells.max().unwrap_or(0).max(heads[column].len())
    };
    let widths: Vec<Constraint> = (0..heads.len())
        .map(|column| Constraint::Length(u16::try_from(width(column)).unwrap_or(u16::MAX)))
        .collect();
    Table::new(rows.into_iter().map(Row::new), widths)
        .header(Row::new(heads.iter().map(|head| (*head).to_owned())).style(Style::new().bold()))
        .column_spacing(2)
        .block(Block::bordered().title(title))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn overview(came: u64) -> Overview {
        let value = json!({
            "nodes": [
                {"name": "gpu-1", "site": "a", "rack": "r7", "bytes": {"hub": came, "sent": 5000}},
                {"name": "gpu-2", "site": "a", "bytes": {"site": 3 * came}},
            ],
            "swarms": [{
                "sha256": "0123456789abcdef", "size": 1_000_000_000, "whole": 1, "fetching": 1,
                "hosts": [{"node": "gpu-2", "held": 250_000_000, "rate": 1_000_000, "etaMs": 7500}],
            }],
        });
        serde_json::from_value(value).expect("an overview")
    }

    #[test]
    fn how_fast_a_node_is_the_hub_knows_at_the_first_look() {
        let mut board = Board::default();
        board.next(overview(10_000_000), EVERY);
        let rows = board.node_rows();
        let shown: Vec<_> = rows.iter().map(|row| (&*row[0], &*row[2], &*row[3])).collect();
        assert_eq!(shown, [("gpu-1", "0 B/s", ""), ("gpu-2", "976.6 KiB/s", "")]);
    }

    #[test]
    fn it_shows_where_bytes_come_from_and_who_is_last() {
        let mut board = Board::default();
        board.next(overview(10_000_000), EVERY);
        board.next(overview(30_000_000), Duration::from_secs(2));
        let mut terminal = Terminal::new(TestBackend::new(110, 14)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &board)).expect("drawn");
        let shown = terminal.backend().to_string();
        for text in [
            "2 nodes take 38.1 MiB/s, 4.0 times what the hub sent",
            "0123456789ab",
            "gpu-2 25 % at 976.6 KiB/s",
            "8 s",
            "a r7",
            "9.5 MiB/s",
        ] {
            assert!(shown.contains(text), "no `{text}` in\n{shown}");
        }
    }
}
