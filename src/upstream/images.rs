//! The pre-cache of images.

use ags_client::{
    AgsError,
    types::{
        CreatePreCacheImageTaskRequest, CreatePreCacheImageTaskResponse, DescribePreCacheImageTaskRequest,
        DescribePreCacheImageTaskResponse,
    },
};

use super::Upstream;

impl Upstream {
    /// # Errors
    /// As the cloud says.
    pub async fn precache(
        &self,
        request: &CreatePreCacheImageTaskRequest,
    ) -> Result<CreatePreCacheImageTaskResponse, AgsError> {
        Ok(self.call(request).await?.value)
    }

    /// # Errors
    /// As the cloud says.
    pub async fn precached(
        &self,
        request: &DescribePreCacheImageTaskRequest,
    ) -> Result<DescribePreCacheImageTaskResponse, AgsError> {
        Ok(self.call(request).await?.value)
    }
}
