//! Hosts that need the same weights at the same time give them to each other.
