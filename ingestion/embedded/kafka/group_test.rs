//! A group as a machine: who is asked to join again when, and who gets what.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot::{self, Receiver};
use tokio::time::Instant;

use super::group::{Group, Join, Joined, Refused, State};

struct Test {
    group: Group,
    now: Instant,
    named: usize,
}

type Joining = Receiver<Result<Joined, Refused>>;

impl Test {
    fn new() -> Self {
        Self { group: Group::default(), now: Instant::now(), named: 0 }
    }

    fn ask(&mut self, join: Join) -> Joining {
        let (reply, joining) = oneshot::channel();
        self.named += 1;
        self.group.join(join, format!("m{}", self.named), self.now, reply);
        joining
    }

    fn join(&mut self, member: &str) -> Joining {
        self.ask(Join { member: member.to_owned(), ..like("range", "") })
    }

    fn pass(&mut self, milliseconds: u64) {
        // In steps, so that nothing is late that a real clock would not make late.
        for _ in 0..milliseconds / 50 {
            self.now += Duration::from_millis(50);
            self.group.tick(self.now);
        }
    }

    fn sync(&mut self, member: &str, assignments: &[(&str, &'static str)]) -> Receiver<Result<Bytes, ResponseError>> {
        let (reply, synced) = oneshot::channel();
        let assignments = assignments.iter().map(|(name, part)| ((*name).to_owned(), Bytes::from(*part))).collect();
        self.group.sync(member, assignments, self.now, reply);
        synced
    }

    /// Two members, `m1` leading, with `a` and `b`.
    fn of_two() -> Self {
        let mut test = Self::new();
        let mut joining = [test.join(""), test.join("")];
        test.pass(300);
        let [first, second] = [0, 1].map(|place| joining[place].try_recv().unwrap().unwrap());
        assert_eq!((first.members.len(), second.members.len(), second.leader.as_str()), (2, 0, "m1"));
        let mut waiting = test.sync("m2", &[]);
        assert!(waiting.try_recv().is_err(), "the leader has not shared out yet");
        assert_eq!(test.sync("m1", &[("m1", "a"), ("m2", "b")]).try_recv().unwrap().unwrap(), "a");
        assert_eq!(waiting.try_recv().unwrap().unwrap(), "b");
        assert_eq!(test.group.state, State::Stable);
        test
    }
}

fn like(protocol: &str, instance: &str) -> Join {
    Join {
        instance: (!instance.is_empty()).then(|| instance.to_owned()),
        session_ms: 6_000,
        rebalance_ms: 20_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![(protocol.to_owned(), Bytes::from_static(b"topics"))],
        ..Join::default()
    }
}

#[test]
fn a_third_member_makes_the_others_join_again_and_the_leader_stays() {
    let mut test = Test::of_two();
    let mut third = test.join("");
    assert_eq!(test.group.heartbeat("m1", test.now), Err(ResponseError::RebalanceInProgress));
    assert!(third.try_recv().is_err());
    let (mut first, mut second) = (test.join("m1"), test.join("m2"));
    for joined in [first.try_recv(), second.try_recv(), third.try_recv()].map(|joined| joined.unwrap().unwrap()) {
        assert_eq!((joined.generation, joined.leader.as_str()), (2, "m1"));
    }
    assert_eq!(test.group.check("m2", None, 1), Err(ResponseError::IllegalGeneration), "a zombie of before");
    assert_eq!(test.group.check("m9", None, 2), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_that_is_not_heard_of_goes_and_the_others_share_anew() {
    let mut test = Test::of_two();
    for _ in 0..7 {
        test.pass(1_000);
        test.group.heartbeat("m1", test.now).unwrap_or_default();
    }
    assert_eq!(test.group.members.keys().collect::<Vec<_>>(), ["m1"]);
    assert_eq!(test.group.heartbeat("m1", test.now), Err(ResponseError::RebalanceInProgress));
    assert_eq!(test.join("m1").try_recv().unwrap().unwrap().members.len(), 1);
    assert_eq!(test.group.heartbeat("m2", test.now), Err(ResponseError::UnknownMemberId));
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut test = Test::of_two();
    let mut third = test.join("");
    let mut second = test.join("m2");
    for _ in 0..20 {
        test.pass(1_000);
        // It says that it is alive, but does not join.
        test.group.heartbeat("m1", test.now).unwrap_or_default();
    }
    let joined = [second.try_recv(), third.try_recv()].map(|joined| joined.unwrap().unwrap());
    assert_eq!(joined.each_ref().map(|joined| joined.leader.as_str()), ["m2", "m2"]);
    assert!(!test.group.members.contains_key("m1"));
}

#[test]
fn a_leader_that_never_shares_out_is_replaced() {
    let mut test = Test::of_two();
    assert_eq!(test.group.leave("m2", None, test.now), Ok(()));
    let (mut third, mut first) = (test.join(""), test.join("m1"));
    assert_eq!(first.try_recv().unwrap().unwrap().generation, 2);
    assert!(third.try_recv().is_ok());
    let mut waiting = test.sync("m3", &[]);
    test.pass(7_000);
    assert_eq!(waiting.try_recv().unwrap(), Err(ResponseError::RebalanceInProgress));
    assert_eq!(test.join("m3").try_recv().unwrap().unwrap().leader, "m3");
}

#[test]
fn a_member_is_named_first_and_joins_under_that_name() {
    let mut test = Test::new();
    let asked = Join { knows_names: true, ..like("range", "") };
    let (error, name) = test.ask(asked.clone()).try_recv().unwrap().unwrap_err();
    assert_eq!((error, name.as_str()), (ResponseError::MemberIdRequired, "m1"));
    let mut joining = test.ask(Join { member: name, ..asked.clone() });
    test.pass(300);
    assert_eq!(joining.try_recv().unwrap().unwrap().member, "m1");
    assert_eq!(test.join("other").try_recv().unwrap().unwrap_err().0, ResponseError::UnknownMemberId);
    test.ask(asked).try_recv().unwrap().unwrap_err();
    test.group.leave("m1", None, test.now).unwrap();
    test.pass(7_000);
    assert!(test.group.is_gone(), "a name that is never used is forgotten");
}

#[test]
fn an_instance_that_starts_again_takes_its_place_and_the_one_before_is_fenced() {
    let mut test = Test::new();
    let mut joining = [test.ask(like("range", "one")), test.ask(like("range", "two"))];
    test.pass(300);
    joining.iter_mut().for_each(|joining| drop(joining.try_recv().unwrap().unwrap()));
    drop(test.sync("m1", &[("m1", "a"), ("m2", "b")]));
    let again = test.ask(like("range", "two")).try_recv().unwrap().unwrap();
    assert_eq!((again.generation, again.member.as_str()), (1, "m3"), "nobody else has to join again");
    assert_eq!(test.sync("m3", &[]).try_recv().unwrap().unwrap(), "b");
    assert_eq!(test.group.check("m2", Some("two"), 1), Err(ResponseError::FencedInstanceId));
    assert_eq!(test.group.leave("", Some("two"), test.now), Ok(()));
    assert_eq!(test.group.members.len(), 1);
}

#[test]
fn a_member_that_knows_no_common_protocol_is_refused() {
    let mut test = Test::of_two();
    let refused = test.ask(like("sticky", "")).try_recv().unwrap().unwrap_err();
    assert_eq!(refused.0, ResponseError::InconsistentGroupProtocol);
    let too_short = test.ask(Join { session_ms: 5, ..like("range", "") }).try_recv().unwrap().unwrap_err();
    assert_eq!(too_short.0, ResponseError::InvalidSessionTimeout);
    assert_eq!(test.group.state, State::Stable, "those who are in it do not notice");
}

#[test]
fn a_group_has_a_limit_of_members() {
    let mut test = Test::new();
    let joining: Vec<Joining> = (0..256).map(|_| test.join("")).collect();
    assert_eq!(test.join("").try_recv().unwrap().unwrap_err().0, ResponseError::GroupMaxSizeReached);
    assert_eq!(joining.len(), test.group.members.len());
}
