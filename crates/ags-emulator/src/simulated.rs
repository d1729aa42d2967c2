//! Instances with nothing inside, for tests of the control plane with thousands of them.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio_util::sync::CancellationToken;

use crate::instance::{BoxIo, Instance, InstanceSpec, Launch, LaunchError};

/// Launches nothing, at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Simulated;

#[derive(Default)]
struct Nothing {
    ended: CancellationToken,
}

impl Launch for Simulated {
    fn launch(&self, _: InstanceSpec) -> BoxFuture<'_, Result<Arc<dyn Instance>, LaunchError>> {
        ready(Ok(Arc::new(Nothing::default()) as Arc<dyn Instance>)).boxed()
    }
}

impl Instance for Nothing {
    fn dial(&self, _: u16) -> BoxFuture<'_, io::Result<BoxIo>> {
        ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), LaunchError>> {
        ready(Ok(())).boxed()
    }

    fn pause(&self) -> io::Result<()> {
        Ok(())
    }

    fn resume(&self) -> io::Result<()> {
        Ok(())
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.ended.cancel();
        ready(()).boxed()
    }

    fn exited(&self) -> CancellationToken {
        self.ended.clone()
    }
}
