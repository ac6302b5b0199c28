//! Stories: sequences of faults that chance alone would hardly produce. Some seeds have a story besides their other
//! faults: hubs give an edge another site; or an edge dies, is perhaps rolled back, perhaps links once more, is then cut
//! off while it gets pushes for a long time, while its hub may be rolled back, and links again; or one of `windows`. A
//! story draws from a
//! generator of its own, so that seeds without a story do not depend on stories.

use pushrelay::session::{Event as Input, Refused};
use pushrelay::wire::CloseReason;

use super::random::Random;
use super::{Checked, Event, HUB, MILLISECOND, NodeId, SECOND, World};

/// The duration of a long story, at most.
const LONG_NS: u64 = 180 * SECOND;
/// Seconds to wait for a link before the story goes on without it.
const LOOKS_MAX: u64 = 90;

/// A story, and its next step.
#[derive(Clone, Debug, Default)]
pub enum Story {
    #[default]
    None,
    /// An edge gets another site.
    Moved,
    /// A copy of an edge's disk is taken.
    Estranged,
    /// The edge dies, and is perhaps rolled back to that copy.
    Dies { edge: NodeId, hub: NodeId },
    /// It starts again, perhaps links once more, and is cut off.
    CutOff { edge: NodeId, hub: NodeId, looks: u64 },
    /// Hubs that send on to each other in a circle.
    Ring,
    /// A story with a narrow window.
    Window(super::windows::Window),
    /// It receives pushes while it is cut off; its hub is perhaps rolled back in the meantime.
    Alone { edge: NodeId, hub: NodeId, pushes: u64 },
}

/// The story of a seed.
pub fn draw(seed: u64) -> (Story, Random) {
    let mut random = Random::new(seed ^ 0x5709_1e5c_0de0_57a1);
    let story = match random.below(100) {
        0..6 => Story::Moved,
        6..16 => Story::Estranged,
        16..20 => Story::Ring,
        _ => super::windows::draw(seed).map_or(Story::None, Story::Window),
    };
    (story, random)
}

impl World {
    /// Schedules the story so that little time is left after it, in which other faults could repair its damage.
    pub fn plan_story(&mut self) {
        let wait = match self.story {
            Story::None | Story::Ring => return,
            Story::Window(window) => return self.plan_window(window),
            Story::Estranged => {
                let before = self.script.between(5 * SECOND, 60 * SECOND);
                let takes = self.script.between(30 * SECOND, LONG_NS);
                self.plan.chaos_ns = self.plan.chaos_ns.max(before + takes);
                self.plan.chaos_ns - takes
            }
            _ => self.plan.chaos_ns - self.script.span(SECOND / 10, self.plan.chaos_ns / 2),
        };
        self.after(wait, Event::Story);
    }

    /// Performs the next step of the story.
    pub fn story(&mut self) -> Checked {
        if self.quiet {
            return Ok(());
        }
        let story = std::mem::take(&mut self.story);
        self.trace(|| format!("story: {story:?}"));
        match story {
            Story::None | Story::Ring => Ok(()),
            Story::Window(window) => {
                self.story = Story::Window(window);
                self.window(window)
            }
            Story::Moved => self.move_edge(),
            Story::Estranged => {
                if let Some((edge, hub)) = self.some_link() {
                    self.save(edge);
                    let wait = self.script.span(SECOND, 20 * SECOND);
                    self.go_on(wait, Story::Dies { edge, hub });
                }
                Ok(())
            }
            Story::Dies { edge, hub } => self.edge_dies(edge, hub),
            Story::CutOff { edge, hub, looks } => {
                self.cut_edge_off(edge, hub, looks);
                Ok(())
            }
            Story::Alone { edge, hub, pushes } => self.edge_is_alone(edge, hub, pushes),
        }
    }

    fn go_on(&mut self, wait: u64, story: Story) {
        self.story = story;
        self.after(wait, Event::Story);
    }

    /// An edge and one of its hubs.
    fn some_link(&mut self) -> Option<(NodeId, NodeId)> {
        let links: Vec<(NodeId, NodeId)> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !node.is_hub && node.twin.is_none())
            .flat_map(|(at, node)| node.uplink_hubs().into_iter().map(move |hub| (at, hub)))
            .collect();
        self.script.pick(&links).copied()
    }

    fn edge_dies(&mut self, edge: NodeId, hub: NodeId) -> Checked {
        if self.script.chance(60) {
            self.save(hub);
        }
        if self.script.chance(60) && !self.nodes[edge].diskless {
            self.roll_back(edge)?;
        } else if self.nodes[edge].running.is_some() {
            self.machine_stops(edge, false)?;
        }
        let looks = if self.script.chance(50) { 0 } else { LOOKS_MAX };
        self.go_on(MILLISECOND, Story::CutOff { edge, hub, looks });
        Ok(())
    }

    fn cut_edge_off(&mut self, edge: NodeId, hub: NodeId, looks: u64) {
        let linked = |uplink: &super::node::Uplink| uplink.hub == hub && uplink.conn.is_some();
        if looks > 0 && !self.nodes[edge].uplinks.iter().any(linked) {
            return self.go_on(SECOND, Story::CutOff { edge, hub, looks: looks - 1 });
        }
        if looks > 0 {
            // Time for a resync, or for a part of one.
            let wait = self.script.span(SECOND / 100, 10 * SECOND);
            return self.go_on(wait, Story::CutOff { edge, hub, looks: 0 });
        }
        self.count("story: an edge is cut off, and pushed to");
        let until = self.now + self.script.span(20 * SECOND, 100 * SECOND);
        for hub in self.nodes[edge].uplink_hubs() {
            self.partitions.insert((edge, hub), until);
        }
        let pushes = self.script.span(1, 64);
        self.go_on(SECOND, Story::Alone { edge, hub, pushes });
    }

    fn edge_is_alone(&mut self, edge: NodeId, hub: NodeId, pushes: u64) -> Checked {
        if pushes == 0 || !self.is_partitioned(edge, hub) {
            return Ok(());
        }
        if self.script.chance(5) {
            self.roll_back(hub)?;
        }
        let pushed = if self.nodes[edge].running.is_some() { self.script.between(1, 5).min(pushes) } else { 0 };
        for _ in 0..pushed {
            let job = self.some_push(edge);
            self.ask(edge, job);
        }
        let wait = self.script.span(SECOND / 10, 4 * SECOND);
        self.go_on(wait, Story::Alone { edge, hub, pushes: pushes - pushed });
        Ok(())
    }

    /// Hubs give an edge another site, as after a reload of their configuration.
    fn move_edge(&mut self) -> Checked {
        let Some((edge, _)) = self.some_link() else { return Ok(()) };
        self.check_promises()?;
        let others: Vec<usize> = (0..self.nodes.len())
            .filter_map(|at| self.nodes[at].site.filter(|_| at != edge && !self.nodes[at].is_hub))
            .collect();
        let fresh = 60 + self.script.below(3) as usize;
        let site = self.script.pick(&others).copied().filter(|_| self.script.chance(40)).unwrap_or(fresh);
        let node = &mut self.nodes[edge];
        node.site = Some(site);
        node.moved_with = node.durable.groups.iter().map(|(id, group)| (id.clone(), group.deleted())).collect();
        self.count("story: an edge gets another place");
        self.relate();
        self.promise_what_is_left();
        let name = self.nodes[edge].name.clone();
        let at_site = |conn: &super::link::Conn| conn.name == name && conn.peer_store.is_some() && !conn.hostile;
        let conns: Vec<_> = self.conns.iter().filter(|(_, conn)| at_site(conn)).map(|(id, _)| *id).collect();
        for conn in conns {
            let text = "the hub's configuration gives the edge another place".into();
            self.stop_session(conn, Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None });
        }
        if self.script.chance(50) {
            let wait = self.script.span(SECOND, 60 * SECOND);
            self.go_on(wait, Story::Moved);
        }
        Ok(())
    }

    /// Stops the hub's end of a connection, now or once it is not blocked.
    pub fn stop_session(&mut self, conn: super::ConnId, refused: Refused) {
        if self.is_alive(conn, HUB) && self.end(conn, HUB).blocked {
            self.end(conn, HUB).stopping = Some(refused);
        } else {
            self.handle(conn, HUB, Input::Stop(refused));
        }
    }
}
