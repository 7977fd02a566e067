use std::collections::VecDeque;

use ballast_testkit::clock::Dice;

use super::*;

const PACKET: u64 = 1452;
const BURST: u64 = 512 << 10;
const TICK: Duration = Duration::from_micros(100);

/// A road with one narrow place, and a queue before that.
struct Road {
    dice: Dice,
    begin: Instant,
    now: Duration,
    /// How many bytes pass the narrow place in a second.
    rate: u64,
    delay: Duration,
    /// Whoever would wait for longer is dropped.
    queue: Duration,
    /// Packets of a thousand that are lost by chance.
    lost_of_thousand: u32,
    is_free_at: Duration,
    flows: Vec<Flow>,
    /// Packets of a flow that something else allows to be on the way, as windows of streams do.
    most_on_the_way: usize,
}

struct Flow {
    pilot: Pilot,
    starts: Duration,
    tokens: f64,
    next: u64,
    on_the_way: VecDeque<Packet>,
    arrived: u64,
    lost: u64,
}

struct Packet {
    number: u64,
    sent: Duration,
    /// When the sender knows what became of it.
    known: Duration,
    is_lost: bool,
}

impl Road {
    #[expect(clippy::disallowed_methods, reason = "`Instant`s count from any one")]
    fn new(megabits: u64, queue: Duration, lost_of_thousand: u32) -> Self {
        Self {
            dice: Dice::new(5),
            begin: Instant::now(),
            now: Duration::ZERO,
            rate: megabits * 125_000,
            delay: Duration::from_millis(100),
            queue,
            lost_of_thousand,
            is_free_at: Duration::ZERO,
            flows: Vec::new(),
            most_on_the_way: usize::MAX,
        }
    }

    fn with_flow(mut self, starts: Duration) -> Self {
        let mut pilot = Pilot::new(BURST, self.begin + starts, 1452);
        // The handshake.
        pilot.arrived(self.delay, 0, true);
        let (tokens, next, on_the_way, arrived, lost) = (0.0, 1, VecDeque::new(), 0, 0);
        self.flows.push(Flow { pilot, starts, tokens, next, on_the_way, arrived, lost });
        self
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            for at in 0..self.flows.len() {
                if self.flows[at].starts <= self.now {
                    self.flows[at].take(self.begin, self.now);
                    self.send(at);
                }
            }
        }
    }

    /// Sends what the window of a flow and its pace allow.
    #[expect(clippy::cast_precision_loss, reason = "a window is far below 2^53")]
    fn send(&mut self, at: usize) {
        let flow = &mut self.flows[at];
        let per_second = flow.pilot.window as f64 * 1.25 / self.delay.as_secs_f64();
        flow.tokens = (flow.tokens + per_second * TICK.as_secs_f64()).min(256.0 * PACKET as f64);
        while flow.tokens >= PACKET as f64
            && flow.on_the_way.len() < self.most_on_the_way
            && (flow.on_the_way.len() as u64 + 1) * PACKET < flow.pilot.window
        {
            flow.tokens -= PACKET as f64;
            let free = self.is_free_at.max(self.now);
            let is_dropped = free - self.now > self.queue;
            let passed = free + Duration::from_nanos(PACKET * 1_000_000_000 / self.rate);
            if !is_dropped {
                self.is_free_at = passed;
            }
            let is_lost = is_dropped || self.dice.happens(self.lost_of_thousand);
            let (number, sent, known) = (flow.next, self.now, passed + self.delay);
            flow.next += 1;
            flow.on_the_way.push_back(Packet { number, sent, known, is_lost });
            flow.pilot.last_sent = number;
        }
    }

    /// What of the road's bytes arrives in so much time, for each flow, in percent.
    fn shares(&mut self, time: Duration) -> Vec<u64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.arrived).collect();
        self.run(time);
        let most = self.rate * time.as_secs();
        let now = self.flows.iter().map(|flow| flow.arrived);
        now.zip(before).map(|(now, before)| (now - before) * 100 / most).collect()
    }

    /// How many of a thousand bytes were lost.
    fn lost_of_thousand(&self) -> u64 {
        let lost: u64 = self.flows.iter().map(|flow| flow.lost).sum();
        let arrived: u64 = self.flows.iter().map(|flow| flow.arrived).sum();
        lost * 1000 / (lost + arrived)
    }
}

impl Flow {
    /// Learns what became of packets.
    fn take(&mut self, begin: Instant, now: Duration) {
        let mut newest = None;
        while let Some(packet) = self.on_the_way.pop_front_if(|packet| packet.known <= now) {
            if packet.is_lost {
                self.lost += PACKET;
                self.pilot.lost(begin + now, begin + packet.sent, PACKET, false);
                continue;
            }
            self.arrived += PACKET;
            self.pilot.arrived(now - packet.sent, PACKET, false);
            newest = Some(packet.number);
        }
        if let Some(newest) = newest {
            let on_its_way = self.on_the_way.len() as u64 * PACKET;
            self.pilot.read(begin + now, newest, on_its_way);
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DEEP: Duration = Duration::from_millis(30);
const SHALLOW: Duration = Duration::from_millis(2);

#[test]
fn a_path_is_filled_whatever_its_queue_is_and_with_loss_by_chance() {
    for (queue, by_chance, least) in
        [(DEEP, 0, 95), (DEEP, 1, 95), (DEEP, 10, 90), (SHALLOW, 0, 85), (SHALLOW, 10, 75)]
    {
        let mut road = Road::new(400, queue, by_chance).with_flow(Duration::ZERO);
        let begun = road.shares(SECOND)[0];
        let after = road.shares(20 * SECOND)[0];
        let lost = road.lost_of_thousand();
        assert!(begun >= 35, "{queue:?}, {by_chance}: {begun} % in the first second");
        assert!(after >= least, "{queue:?}, {by_chance}: {after} % after it");
        assert!(
            lost <= u64::from(by_chance) + 20,
            "{queue:?}, {by_chance}: {lost} of a thousand lost"
        );
    }
}

#[test]
fn much_loss_slows_it_down_and_stops_it_never() {
    let mut road = Road::new(400, DEEP, 50).with_flow(Duration::ZERO);
    road.run(20 * SECOND);
    let share = road.shares(10 * SECOND)[0];
    assert!((2..50).contains(&share), "{share} %");
}

#[test]
fn it_follows_a_path_that_becomes_narrow_and_wide_again() {
    let mut road = Road::new(400, DEEP, 1).with_flow(Duration::ZERO);
    road.run(5 * SECOND);
    road.rate /= 4;
    road.run(2 * SECOND);
    let lost = road.flows[0].lost;
    let narrow = road.shares(5 * SECOND)[0];
    let lost = (road.flows[0].lost - lost) / PACKET;
    assert!(narrow >= 85, "{narrow} % of the narrow path");
    assert!(lost < 1000, "{lost} packets lost");
    road.rate *= 4;
    road.run(5 * SECOND);
    let wide = road.shares(5 * SECOND)[0];
    assert!(wide >= 85, "{wide} % of the wide path");
}

#[test]
fn who_comes_later_gets_a_fair_share() {
    let mut road = Road::new(100, DEEP, 0).with_flow(Duration::ZERO).with_flow(5 * SECOND);
    road.run(40 * SECOND);
    let shares = road.shares(40 * SECOND);
    assert!(shares.iter().all(|share| *share >= 25), "{shares:?} %");
    assert!(shares.iter().sum::<u64>() >= 90, "{shares:?} %");
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut road = Road::new(400, DEEP, 0).with_flow(Duration::ZERO);
    road.most_on_the_way = 100;
    road.run(20 * SECOND);
    let window = road.flows[0].pilot.window;
    assert!(window <= BURST.max(3 * 100 * PACKET), "{window} bytes, of which 145,200 are used");
}
