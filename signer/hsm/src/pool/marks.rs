//! Marks of an admin trail's checkpoints and of statements: asked for, begun, and set on an operator's word.

use super::{Pool, unexpected};
use crate::error::HsmError;
use crate::mark::{Mark, Marked};
use crate::protocol::{Answer, Call};

impl Pool {
    /// The newest checkpoint of an admin trail, or statement of a key, whose signing was begun with this
    /// token; none when none was.
    ///
    /// # Errors
    /// [`MarkState`](crate::Reason::MarkState) when the mark file is missing, damaged or not of this
    /// token's MAC key; [`HsmUnavailable`](crate::Reason::HsmUnavailable) when no worker is up.
    pub async fn mark(&self, of: &Marked) -> Result<Option<Mark>, HsmError> {
        match self.administer(Call::Mark(of.clone())).await? {
            Answer::Marked(mark) => Ok(mark),
            _ => Err(unexpected()),
        }
    }

    /// Makes an empty mark file, before the token's first key. Without one neither admin checkpoints nor
    /// statements are signed.
    ///
    /// # Errors
    /// [`HsmRejected`](crate::Reason::HsmRejected) when the token holds a key object of ours;
    /// [`MarkState`](crate::Reason::MarkState) when the file cannot be written.
    pub async fn create_mark(&self) -> Result<(), HsmError> {
        self.done(Call::CreateMark).await
    }

    /// Sets a mark, because an operator says that the store which ends there is the newest. Heals a mark file that is missing or damaged, or lags.
    ///
    /// # Errors
    /// [`PositionStale`](crate::Reason::PositionStale) when the mark lies beyond `mark`,
    /// [`PositionConflict`](crate::Reason::PositionConflict) when it has another input at its size: it
    /// never moves back. [`MarkState`](crate::Reason::MarkState) when the file cannot be written.
    pub async fn confirm_mark(&self, mark: Mark) -> Result<(), HsmError> {
        self.done(Call::ConfirmMark(mark)).await
    }
}
