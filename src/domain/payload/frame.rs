//! The length that stands before the elements of an array or a map.

use rmp::encode as put;

use super::unfit::Unfit;

/// An array or a map whose elements are being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    start: usize,
    announced: usize,
    is_map: bool,
}

impl Frame {
    /// Announces a length, which [`close`](Self::close) corrects where it was not the real one.
    pub(super) fn open(out: &mut Vec<u8>, announced: usize, is_map: bool) -> Result<Self, Unfit> {
        let start = out.len();
        write_length(out, announced, is_map)?;
        Ok(Self {
            start,
            announced,
            is_map,
        })
    }

    pub(super) fn close(self, out: &mut Vec<u8>, count: usize) -> Result<(), Unfit> {
        if count == self.announced {
            return Ok(());
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        write_length(&mut before, self.announced, self.is_map)?;
        write_length(&mut after, count, self.is_map)?;
        out.splice(self.start..self.start + before.len(), after);
        Ok(())
    }
}

fn write_length(out: &mut Vec<u8>, count: usize, is_map: bool) -> Result<(), Unfit> {
    let count =
        u32::try_from(count).map_err(|_| Unfit::new("more elements than MessagePack can count"))?;
    if is_map {
        put::write_map_len(out, count)?;
    } else {
        put::write_array_len(out, count)?;
    }
    Ok(())
}
