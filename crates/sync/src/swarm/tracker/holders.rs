//! Which nodes have what, as they say. Only a hint: whoever asks one of them may hear that it has
//! not.

use std::collections::HashMap;
use std::hash::Hash;

use super::roster::NodeNumber;

/// Who has each of some things.
#[derive(Debug)]
pub(super) struct Holders<K> {
    /// The most things.
    most: usize,
    /// The most holders of one.
    most_each: usize,
    nodes: HashMap<K, Vec<NodeNumber>>,
}

impl<K: Copy + Eq + Hash> Holders<K> {
    pub(super) fn new(most: usize, most_each: usize) -> Self {
        Self { most, most_each, nodes: HashMap::new() }
    }

    /// A node has something. Where there is no room, who has gone makes some.
    pub(super) fn add(&mut self, thing: K, node: NodeNumber, is_here: impl Fn(NodeNumber) -> bool) {
        if self.nodes.len() >= self.most && !self.nodes.contains_key(&thing) {
            self.weed(&is_here);
            if self.nodes.len() >= self.most {
                return;
            }
        }
        let nodes = self.nodes.entry(thing).or_default();
        nodes.retain(|other| *other != node && is_here(*other));
        if nodes.len() < self.most_each {
            nodes.push(node);
        }
    }

    /// It has it no more.
    pub(super) fn remove(&mut self, thing: &K, node: NodeNumber) {
        if let Some(nodes) = self.nodes.get_mut(thing) {
            nodes.retain(|other| *other != node);
            if nodes.is_empty() {
                self.nodes.remove(thing);
            }
        }
    }

    /// It has nothing of all.
    pub(super) fn remove_all(&mut self, node: NodeNumber) {
        self.weed(|other| other != node);
    }

    /// Who has it. Some of them may have gone.
    pub(super) fn of(&self, thing: &K) -> &[NodeNumber] {
        self.nodes.get(thing).map(Vec::as_slice).unwrap_or_default()
    }

    fn weed(&mut self, stays: impl Fn(NodeNumber) -> bool) {
        self.nodes.retain(|_, nodes| {
            nodes.retain(|node| stays(*node));
            !nodes.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_things_and_holders_and_who_left_makes_room() {
        let mut holders = Holders::new(2, 2);
        let node = NodeNumber::test;
        for number in 1..=3 {
            holders.add('a', node(number), |_| true);
        }
        assert_eq!(holders.of(&'a'), [node(1), node(2)]);
        holders.add('a', node(3), |other| other != node(1));
        assert_eq!(holders.of(&'a'), [node(2), node(3)]);
        holders.add('b', node(1), |_| true);
        holders.add('c', node(1), |_| true);
        assert!(holders.of(&'c').is_empty());
        holders.add('c', node(2), |other| other != node(1));
        assert_eq!(holders.of(&'c'), [node(2)]);
        holders.remove(&'c', node(2));
        holders.remove_all(node(2));
        assert!(holders.of(&'c').is_empty());
        assert_eq!(holders.of(&'a'), [node(3)]);
    }
}
