//! `controller`: runs a load whose clients are the workers'.

use crate::Outcome;
use crate::crew::Muster;
use crate::load::Load;

/// Options of `controller`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Where workers connect to; port 0 takes a free one, and says which.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7499")]
    listen: String,
    /// Begin when there are so many workers.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::number::count_u32(1..=256))]
    workers: u32,
    #[command(subcommand)]
    load: Load,
}

/// Runs a load with workers, reports, and writes what was asked for.
pub(crate) fn control(options: &Options) -> Result<Outcome, String> {
    let muster = Muster::bind(&options.listen, options.workers as usize)?;
    options.load.run(Some(muster))
}
