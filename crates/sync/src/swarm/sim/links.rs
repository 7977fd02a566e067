//! What links carry: each shares its rate among what goes over it, by weight.

/// Pieces on their way from one host, or the hub, to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Nobody: the hub.
    pub(super) from: Option<usize>,
    pub(super) to: usize,
    pub(super) stripe: u32,
    pub(super) piece: u64,
    /// Bytes a second, once it is shared out.
    pub(super) rate: f64,
    /// How much it gets of a link next to others.
    pub(super) weight: f64,
    /// Bytes a second that whoever sends has for it.
    pub(super) most: f64,
}

/// The links of all hosts, and of their sites to each other.
pub(super) struct Links {
    /// Bytes a second of each host, out and in; the hub is the first.
    up: Vec<f64>,
    down: Vec<f64>,
    site: Vec<u32>,
    rate: f64,
    /// What a site's link to all others carries each way, if that is limited.
    pub(super) wan: Option<f64>,
}

/// How often what is left of links is shared again among those who can take more.
const ROUNDS: usize = 4;

impl Links {
    pub(super) fn new(rate: f64) -> Self {
        Self { up: vec![rate], down: vec![rate], site: vec![0], rate, wan: None }
    }

    pub(super) fn add(&mut self, site: u32) {
        self.up.push(self.rate);
        self.down.push(self.rate);
        self.site.push(site);
    }

    /// Makes the links of a host so many times as fast.
    pub(super) fn scale(&mut self, host: usize, up: f64, down: f64) {
        self.up[host + 1] *= up;
        self.down[host + 1] *= down;
    }

    pub(super) fn crosses(&self, flow: &Flow) -> bool {
        self.site[from(flow)] != self.site[flow.to + 1]
    }

    /// What a flow goes over, in the list that [`Self::capacities`] makes.
    fn passed(&self, flow: &Flow) -> [usize; 4] {
        let hosts = self.up.len();
        let (up, down) = (from(flow), hosts + flow.to + 1);
        if self.wan.is_none() || !self.crosses(flow) {
            return [up, down, up, down];
        }
        let site = |host: usize| 2 * hosts + 2 * self.site[host] as usize;
        [up, down, site(from(flow)), site(flow.to + 1) + 1]
    }

    fn capacities(&self) -> Vec<f64> {
        let sites = self.site.iter().max().map_or(0, |most| *most as usize + 1);
        let wan = vec![self.wan.unwrap_or(f64::INFINITY); 2 * sites];
        [self.up.clone(), self.down.clone(), wan].concat()
    }
}

fn from(flow: &Flow) -> usize {
    flow.from.map_or(0, |from| from + 1)
}

/// Shares the links out among the flows.
pub(super) fn share(links: &Links, flows: &mut [Flow]) {
    let mut left = links.capacities();
    let mut users = vec![0.0; left.len()];
    let passed: Vec<_> = flows.iter().map(|flow| links.passed(flow)).collect();
    for _ in 0..ROUNDS {
        users.fill(0.0);
        let can_more = |left: &[f64], flow: &Flow, over: &[usize; 4]| {
            flow.rate < flow.most && over.iter().all(|link| left[*link] > links.rate * 1e-6)
        };
        for (flow, over) in flows.iter().zip(&passed) {
            if can_more(&left, flow, over) {
                each(over, |link| users[link] += flow.weight);
            }
        }
        let before = left.clone();
        for (flow, over) in flows.iter_mut().zip(&passed) {
            if !can_more(&before, flow, over) {
                continue;
            }
            let share = |link: &usize| before[*link] / users[*link];
            let more = flow.weight * over.iter().map(share).fold(f64::INFINITY, f64::min);
            let more = more.min(flow.most - flow.rate);
            flow.rate += more;
            each(over, |link| left[link] -= more);
        }
    }
}

/// Each link of a flow once.
fn each(over: &[usize; 4], mut to: impl FnMut(usize)) {
    for link in &over[..if over[0] == over[2] { 2 } else { 4 }] {
        to(*link);
    }
}
