//! What goes on, for those who watch.

use ballast_proto::v1;

use super::crowd::{Crowd, Standing};
use super::roster::Roster;

/// Hosts of a swarm that are shown.
const SHOWN: usize = 1000;
/// Swarms that are shown, those with most hosts first; and nodes.
const SWARMS_SHOWN: usize = 100;
const NODES_SHOWN: usize = 4096;

/// Who is furthest behind of all that fetch; zeros where nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slowest {
    /// Hundredths of its file that it has.
    pub(super) percent: u64,
    /// Bytes a second that it takes.
    pub(super) rate: u64,
    /// When the last of all is done, at the rate of each.
    pub(super) eta_ms: u64,
}

impl Roster {
    /// Who is last, in whichever swarm.
    pub(super) fn slowest(&self) -> Slowest {
        let fetching = self.swarms.values().flat_map(|swarm| {
            let lacks = swarm.standings().filter(|standing| !standing.is_whole);
            lacks.map(|standing| (standing.held * 100 / swarm.size().max(1), standing))
        });
        let mut slowest: Option<Slowest> = None;
        for (percent, Standing { rate, eta_ms, .. }) in fetching {
            let before = slowest.unwrap_or(Slowest { percent, rate, eta_ms });
            let (percent, rate) = (before.percent, before.rate).min((percent, rate));
            slowest = Some(Slowest { percent, rate, eta_ms: before.eta_ms.max(eta_ms) });
        }
        slowest.unwrap_or_default()
    }

    /// How much came to nodes over the network for each hundred bytes that the hub sent; 0 before
    /// it sent any.
    pub(super) fn speed_up_percent(&self) -> u64 {
        let ledger = &self.counts.ledger;
        let came = ledger.site + ledger.peer + ledger.hub + ledger.upstream;
        came.saturating_mul(100).checked_div(ledger.hub).unwrap_or(0)
    }

    /// All nodes, and the largest swarms.
    pub(super) fn overview(&self) -> v1::Overview {
        let nodes = self.nodes.values().filter_map(|node| {
            let presence = node.presence()?;
            Some(v1::NodeView {
                name: node.name.as_str().to_owned(),
                address: presence.address.to_string(),
                site: presence.site.clone(),
                rack: presence.rack.clone(),
                ledger: Some(node.ledger),
            })
        });
        let mut nodes: Vec<_> = nodes.take(NODES_SHOWN).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let views = self.swarms.iter().map(|(file, swarm)| {
            let sha256 = file.as_bytes().to_vec().into();
            v1::SwarmView { sha256, ..self.swarm_view(swarm) }
        });
        let mut swarms: Vec<_> = views.collect();
        swarms.sort_by_key(|view| (std::cmp::Reverse(view.fetching), view.sha256.clone()));
        swarms.truncate(SWARMS_SHOWN);
        v1::Overview { nodes, swarms }
    }

    fn swarm_view(&self, swarm: &Crowd) -> v1::SwarmView {
        let all: Vec<Standing> = swarm.standings().collect();
        let whole = all.iter().map(|standing| u32::from(standing.is_whole)).sum();
        let mut others: Vec<_> = all.iter().filter(|standing| !standing.is_whole).collect();
        others.sort_by_key(|standing| (standing.held, standing.rate));
        let fetching = u32::try_from(others.len()).unwrap_or(u32::MAX);
        let hosts = others.into_iter().take(SHOWN).map(|standing| v1::HostView {
            node: self
                .nodes
                .get(&standing.node)
                .map(|node| node.name.as_str().to_owned())
                .unwrap_or_default(),
            held: standing.held,
            rate: standing.rate,
            eta_ms: standing.eta_ms,
            children: standing.children,
        });
        v1::SwarmView {
            size: swarm.size(),
            whole,
            hosts: hosts.collect(),
            fetching,
            ..v1::SwarmView::default()
        }
    }
}
