//! Who started this process, as one of several: `mpirun` or `srun`, by the variables that they set.

use super::Rank;
use crate::error::{Error, Result};

/// A launcher's family of MPI libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MpiFamily {
    /// Open MPI.
    OpenMpi,
    /// MPICH and its relatives.
    Mpich,
}

/// A process that a launcher has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Which of the processes it is.
    pub rank: Rank,
    /// How many of them are on this machine, where the launcher says so.
    pub on_this_machine: Option<u32>,
    /// Its number among those on this machine, where the launcher says so.
    pub local: Option<u32>,
    /// The launcher, as users call it.
    pub launcher: &'static str,
    /// Whose library it belongs to, where that is certain.
    pub family: Option<MpiFamily>,
}

/// Variables of a launcher.
struct Variables {
    launcher: &'static str,
    family: Option<MpiFamily>,
    rank: &'static str,
    world: &'static str,
    on_this_machine: &'static str,
    local: &'static str,
}

/// The launchers, the more certain signs first: `mpirun` within a job of Slurm sets its own variables beside Slurm's, and
/// `srun --mpi=pmix` and `--mpi=pmi2` Slurm's beside those of PMI. Of Slurm only a step that `srun` has started counts; the
/// script of a job has variables of the job.
const LAUNCHERS: [Variables; 3] = [
    Variables {
        launcher: "mpirun of Open MPI",
        family: Some(MpiFamily::OpenMpi),
        rank: "OMPI_COMM_WORLD_RANK",
        world: "OMPI_COMM_WORLD_SIZE",
        on_this_machine: "OMPI_COMM_WORLD_LOCAL_SIZE",
        local: "OMPI_COMM_WORLD_LOCAL_RANK",
    },
    Variables {
        launcher: "srun",
        family: None,
        rank: "SLURM_PROCID",
        world: "SLURM_STEP_NUM_TASKS",
        on_this_machine: "",
        local: "SLURM_LOCALID",
    },
    Variables {
        launcher: "mpirun of MPICH",
        family: Some(MpiFamily::Mpich),
        rank: "PMI_RANK",
        world: "PMI_SIZE",
        on_this_machine: "MPI_LOCALNRANKS",
        local: "MPI_LOCALRANKID",
    },
];

impl Launched {
    /// What the environment says; `variable` looks a variable up. `None` where no launcher has started this process.
    ///
    /// # Errors
    /// Environment error: a variable of a launcher is no number, or the rank is not one of the world.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<u32>> {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            let parsed = text.parse().ok();
            parsed.map(Some).ok_or_else(|| {
                Error::environment(format!("read {name}: `{text}` is no number"))
                    .hint("a launcher sets it: unset it where no launcher has started this process")
            })
        };
        for known in LAUNCHERS {
            let (Some(rank), Some(world)) = (number(known.rank)?, number(known.world)?) else {
                continue;
            };
            if rank >= world {
                let message = format!(
                    "read the launcher's variables: {} is {rank} and {} is {world}",
                    known.rank, known.world
                );
                return Err(Error::environment(message)
                    .hint("both are the launcher's: unset them where no launcher has started this process"));
            }
            let family = known.family.or_else(|| {
                // Slurm's plugin for PMI-2 serves MPICH, that for PMIx Open MPI.
                let has = |name| variable(name).is_some();
                match (has("PMIX_RANK"), has("PMI_RANK")) {
                    (true, false) => Some(MpiFamily::OpenMpi),
                    (false, true) => Some(MpiFamily::Mpich),
                    _ => None,
                }
            });
            return Ok(Some(Self {
                rank: Rank { rank, world },
                on_this_machine: number(known.on_this_machine)?,
                local: number(known.local)?,
                launcher: known.launcher,
                family,
            }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(variables: &[(&str, &str)]) -> Result<Option<Launched>> {
        Launched::from_environment(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn launchers_are_recognized_by_their_variables() {
        assert_eq!(
            launched(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(),
            None,
            "a job's script"
        );
        let open = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("SLURM_PROCID", "0"),
            ("SLURM_STEP_NUM_TASKS", "1"),
        ];
        let found = launched(&open).unwrap().unwrap();
        assert_eq!(
            (found.rank, found.family),
            (Rank { rank: 1, world: 2 }, Some(MpiFamily::OpenMpi))
        );
        assert_eq!(found.on_this_machine, Some(2));
        let mpich = [("PMI_RANK", "0"), ("PMI_SIZE", "3"), ("MPI_LOCALRANKID", "0")];
        let found = launched(&mpich).unwrap().unwrap();
        assert_eq!(
            (found.launcher, found.family),
            ("mpirun of MPICH", Some(MpiFamily::Mpich))
        );
        let slurm = |pmi| [("SLURM_PROCID", "2"), ("SLURM_STEP_NUM_TASKS", "4"), (pmi, "2")];
        for (pmi, family) in [
            ("PMIX_RANK", Some(MpiFamily::OpenMpi)),
            ("PMI_RANK", Some(MpiFamily::Mpich)),
            ("OTHER", None),
        ] {
            let found = launched(&slurm(pmi)).unwrap().unwrap();
            assert_eq!((found.launcher, found.family), ("srun", family), "{pmi}");
        }
    }

    #[test]
    fn launchers_with_impossible_variables_are_refused() {
        let error = launched(&[("PMI_RANK", "2"), ("PMI_SIZE", "2")]).unwrap_err();
        assert!(
            error.to_string().contains("PMI_RANK is 2 and PMI_SIZE is 2"),
            "{error}"
        );
        let error = launched(&[("PMI_RANK", "one"), ("PMI_SIZE", "2")]).unwrap_err();
        assert!(error.to_string().contains("`one`"), "{error}");
    }
}
