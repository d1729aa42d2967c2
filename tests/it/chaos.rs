//! Faults: gateways, database and cloud go wrong in turn, and at once, while callers start and stop instances. Whatever happens,
//! it ends with what the cloud has being what the database says, each key having started one instance at most, nothing being
//! stuck, quotas counting what there is, and no secret in a log.
//!
//! `AGS_TEST_SEQUENCES` says how many random scripts are played, `AGS_TEST_SEED` which.

mod step;
mod world;

use proptest::test_runner::{Config, RngSeed, TestRunner};

use self::{
    step::{Action, By, Outage, Step, Trouble, script},
    world::World,
};
use crate::harness::{run, setting};

async fn play(steps: &[Step]) {
    let mut world = World::new().await;
    world.play(steps).await;
    world.check().await;
}

fn start(key: u8) -> Step {
    Step::Start { key, by: By::Second }
}

fn stop(key: u8) -> Step {
    Step::Stop { key, by: By::Second }
}

fn cloud(action: Action, trouble: Trouble, times: u8) -> Step {
    Step::Cloud { action, trouble, times }
}

#[test]
fn answers_of_the_cloud_are_lost() {
    use Action::{Pause, Resume, Start, Stop};
    let lost = |action| cloud(action, Trouble::LosesAnswers, 2);
    let pause = Step::Pause { key: 0, by: By::Second };
    let resume = Step::Resume { key: 0, by: By::First };
    run(async move {
        play(&[
            lost(Start),
            start(0),
            lost(Start),
            Step::StartAtBoth { key: 1 },
            lost(Pause),
            pause,
            lost(Resume),
            resume,
            lost(Stop),
            stop(0),
            lost(Start),
            Step::StartAndLeave { key: 2, by: By::Second },
        ])
        .await;
    });
}

#[test]
fn a_gateway_is_killed_at_every_turn() {
    run(async {
        let slow = |action| cloud(action, Trouble::IsSlow, 1);
        let leave = |key| Step::StartAndLeave { key, by: By::Second };
        play(&[
            slow(Action::Start),
            leave(0),
            Step::Kill,
            start(0),
            cloud(Action::Start, Trouble::LosesAnswers, 9),
            leave(1),
            Step::Kill,
            Step::Heal,
            start(1),
            slow(Action::Stop),
            stop(0),
            Step::Expire { key: 1 },
            Step::Kill,
            start(2),
        ])
        .await;
    });
}

#[test]
fn the_cloud_throttles_everybody() {
    run(async {
        play(&[
            start(0),
            cloud(Action::Any, Trouble::Throttles, 40),
            start(1),
            Step::StartAtBoth { key: 2 },
            stop(0),
            Step::Expire { key: 1 },
        ])
        .await;
    });
}

#[test]
fn the_database_restarts_goes_away_and_is_read_only_for_a_while() {
    run(async {
        let trouble = Step::Database;
        play(&[
            start(0),
            trouble(Outage::Restarts),
            start(1),
            trouble(Outage::Gone),
            start(2),
            stop(0),
            Step::Heal,
            start(2),
            trouble(Outage::ReadOnly),
            start(3),
            stop(1),
            Step::Heal,
            start(3),
            stop(1),
        ])
        .await;
    });
}

#[test]
fn the_way_to_the_database_breaks_again_and_again() {
    let pause = |by| Step::Pause { key: 0, by };
    run(async move {
        play(&[
            Step::CutDatabase { bytes: 6_000 },
            start(0),
            Step::StartAtBoth { key: 1 },
            stop(0),
            start(2),
            Step::CutDatabase { bytes: 1_500 },
            start(3),
            stop(1),
            pause(By::Second),
            Step::StartAndLeave { key: 2, by: By::Second },
            Step::Kill,
            Step::CutDatabase { bytes: 20_000 },
            start(3),
            stop(2),
        ])
        .await;
    });
}

#[test]
fn everything_is_slow_and_others_stop_what_is_ours() {
    run(async {
        play(&[
            cloud(Action::Any, Trouble::IsSlow, 60),
            start(0),
            start(1),
            Step::StopInTheCloud { key: 0 },
            Step::Pause { key: 1, by: By::First },
            stop(1),
            Step::StartAtBoth { key: 2 },
            Step::Extend { key: 2, by: By::First },
        ])
        .await;
    });
}

#[test]
fn whatever_happens_nothing_leaks_and_nothing_is_lost() {
    let config = Config {
        cases: setting("AGS_TEST_SEQUENCES", 6),
        rng_seed: RngSeed::Fixed(setting("AGS_TEST_SEED", 7)),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    };
    let cases = config.cases;
    let outcome = TestRunner::new(config).run(&script(), |steps| {
        run(play(&steps));
        Ok(())
    });
    println!("{cases} scripts");
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
