use std::io;
use std::time::{Duration, Instant};

use crate::harness::Machine;

#[tokio::test]
async fn an_instance_comes_up_and_goes() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let begun = Instant::now();
        let instance = machine.instance("one").await?;
        eprintln!("{}: ready after {:?}", machine.launcher.isolation(), begun.elapsed());
        assert!(!instance.exited().is_cancelled());
        instance.dial(49983).await?;

        let begun = Instant::now();
        instance.stop().await;
        eprintln!("{}: gone after {:?}", machine.launcher.isolation(), begun.elapsed());
        assert!(instance.exited().is_cancelled());
        assert!(!machine.state.path().join("one").exists());
        assert!(instance.dial(49983).await.is_err());
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_port_nobody_listens_on_refuses() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("quiet").await?;
        let error = instance.dial(1).await.err().map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::ConnectionRefused));
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_frozen_instance_does_not_answer() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("cold").await?;
        instance.pause()?;
        assert!(instance.dial(49983).await.is_err());
        instance.resume()?;
        instance.dial(49983).await?;
        instance.pause()?;
        let stopped = tokio::time::timeout(Duration::from_secs(4), instance.stop()).await;
        assert!(stopped.is_ok(), "a frozen instance can be stopped");
    }
    Ok(())
}
