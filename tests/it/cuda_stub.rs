//! Pipelines that compute by way of CUDA's libraries, where the CUDA stub takes their place: the calls are those that a GPU
//! gets, what computes is the CPU. Failures of a GPU are tested on a stub that is made to fail.

use std::fs;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

use super::support::{self, Project};

#[path = "../cuda_stub/mod.rs"]
mod library;

use library::CudaStub;

/// The file in which the stub counts its work.
const CALLS: &str = "calls";

struct Machine {
    project: Project,
    cuda_stub: CudaStub,
}

impl Machine {
    fn new() -> Self {
        Self {
            project: Project::whole(200),
            cuda_stub: CudaStub::build(),
        }
    }

    fn on(&self, mut command: Command, settings: &[(&str, &str)]) -> Command {
        command
            .envs(self.cuda_stub.environment())
            .env("CUDA_STUB_CALLS", self.project.path().join(CALLS))
            .envs(settings.iter().copied());
        command
    }

    /// `mdlm run` on the GPU, into a store of its own.
    fn run(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        let all = [&["--device", "cuda", "--json"], arguments].concat();
        self.on(self.project.mdlm("run", &all), settings)
            .output()
            .unwrap()
    }

    fn refused(&self, settings: &[(&str, &str)]) -> String {
        let output = self.run(&[], settings);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// How often something was done.
    fn calls(&self, what: &str) -> usize {
        let text = fs::read_to_string(self.project.path().join(CALLS)).unwrap();
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(what)?.trim().parse().ok());
        found.unwrap_or(0)
    }
}

/// The first number of a stage's figure.
fn figure(summary: &Value, stage: &str, name: &str) -> f64 {
    let stages = summary["stages"].as_array().unwrap();
    let stage = stages.iter().find(|found| found["name"] == stage).unwrap();
    let text = stage["figures"][name].as_str();
    let number = text.and_then(|text| text.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no `{name}` in {stage}"))
}

/// The whole pipeline: validation between steps, checkpoints, an evaluation and samples, near to what the CPU makes of them.
#[test]
fn pipeline_on_the_cuda_stub_is_near_that_of_the_cpu() {
    let machine = Machine::new();
    let printed = |output: Output| -> Value {
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{talk}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = printed(machine.run(&[], &[]));
    assert!(machine.calls("launches of a graph") > 40 && machine.calls("graphs") < 30);
    assert!(machine.calls("products with an epilogue") > 0);
    let other = Project::whole(200);
    let expected = other.run(&["--device", "cpu"]);
    for (stage, name) in FIGURES {
        let [found, expected] = [&found, &expected].map(|summary| figure(summary, stage, name));
        assert!(
            (found - expected).abs() < 2e-2 * expected,
            "{stage} {name}: {found} {expected}"
        );
    }

    // Without epilogues kernels do what they would have done.
    fs::remove_dir_all(machine.project.store()).unwrap();
    let plain = printed(machine.run(&[], &[("CUDA_STUB_PLAIN", "1")]));
    assert_eq!(machine.calls("products with an epilogue"), 0);
    fs::remove_dir_all(machine.project.store()).unwrap();
    let asked = printed(machine.run(&[], &[("MDLM_GPU_PLAIN", "1")]));
    assert_eq!(machine.calls("products with an epilogue"), 0);
    let artifacts = |summary: &Value| -> Vec<Value> {
        let stages = summary["stages"].as_array().unwrap().iter();
        stages.map(|stage| stage["artifact"].clone()).collect()
    };
    assert_eq!(artifacts(&plain), artifacts(&asked));
    assert_ne!(artifacts(&found), artifacts(&asked));
    for (stage, name) in FIGURES {
        let [found, expected] = [&plain, &expected].map(|summary| figure(summary, stage, name));
        assert!(
            (found - expected).abs() < 2e-2 * expected,
            "{stage} {name}: {found} {expected}"
        );
    }
}

/// What is compared.
const FIGURES: [(&str, &str); 3] = [("model", "loss"), ("model", "bound"), ("bound", "bits/byte")];

/// A kernel that fails is reported by the next call that waits; with MDLM_GPU_CAREFUL, by its name and its launch.
#[test]
fn kernel_failure_is_reported_with_the_variable_that_names_it() {
    let machine = Machine::new();
    let broken = ("CUDA_STUB_FAILS", "attention_forward");
    let talk = machine.refused(&[broken]);
    assert!(talk.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{talk}");
    assert!(talk.contains("hint: set MDLM_GPU_CAREFUL=1"), "{talk}");
    let talk = machine.refused(&[broken, ("MDLM_GPU_CAREFUL", "1")]);
    assert!(
        talk.contains("run the kernel `attention_forward` of `attention` on ["),
        "{talk}"
    );
    assert!(talk.contains("blocks of") && talk.contains("CUDA stub"), "{talk}");
}

/// Too little memory is reported before anything is computed or when it runs out, with what to do.
#[test]
fn out_of_memory_is_reported_with_a_hint() {
    let machine = Machine::new();
    let talk = machine.refused(&[("CUDA_STUB_MEMORY", "41943040")]);
    assert!(talk.contains("error: ") && talk.contains("\nhint: "), "{talk}");
    assert!(talk.contains("MiB"), "{talk}");
}

/// Measuring runs the same steps, kernel by kernel.
#[test]
fn bench_measures_kernels_by_name() {
    let machine = Machine::new();
    let mut bench = support::mdlm();
    bench.args([
        "bench",
        "--shape",
        "nano",
        "--device",
        "cuda",
        "--task",
        "train",
        "--kernels",
        "--batch",
        "2",
    ]);
    let output = machine.on(bench, &[]).output().unwrap();
    let (printed, talk) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{talk}");
    assert!(printed.contains("attention_forward"), "{printed}{talk}");
}

/// A GPU that computes something else is not used, and `--device cuda` is an error.
#[test]
fn self_test_refuses_a_gpu_with_wrong_results() {
    let machine = Machine::new();
    // Another driver: as such it has not passed before.
    let wrong = [("CUDA_STUB_WRONG", "1"), ("CUDA_STUB_DRIVER", "13010")];
    let talk = machine.refused(&wrong);
    assert!(
        talk.contains("pass the GPU self-test: likelihoods in f32 differ"),
        "{talk}"
    );
    assert!(talk.contains("or use `--device cpu`"), "{talk}");
    let doctor = |settings: &[(&str, &str)]| {
        let mut doctor = support::mdlm();
        doctor.args(["doctor", "--json", "--device", "cuda"]);
        // Other tests compute there.
        doctor.env("MDLM_GPU_SHARED", "1");
        let output = machine.on(doctor, settings).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report)
    };
    let (code, report) = doctor(&wrong);
    assert_eq!(
        (code, &report["verdict"]["device"]),
        (Some(3), &"cpu".into()),
        "{report}"
    );
    assert_eq!(report["self_test"]["outcome"], "failed", "{report}");
    let (code, report) = doctor(&[]);
    assert_eq!(
        (code, &report["verdict"]["device"]),
        (Some(0), &"cuda".into()),
        "{report}"
    );
    assert_eq!(report["self_test"]["outcome"], "passed", "{report}");
    let run = machine.project.mdlm("run", &["--device", "auto"]);
    let output = machine.on(run, &wrong).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    assert!(
        talk.contains("computes on the CPU: failed to pass the GPU self-test"),
        "{talk}"
    );
}

/// Two threads, each with its GPU: their gradients and weights travel over NCCL, or through the host where it is not wanted.
#[test]
fn ranks_on_two_devices_of_the_cuda_stub_have_the_bits_of_one() {
    let machine = Machine::new();
    let settings = [
        "--target",
        "model",
        "--set",
        "stages.model.grains=4",
        "--set",
        "stages.model.steps=4",
    ];
    for precision in ["f32", "bf16"] {
        let precision = format!("stages.model.precision=\"{precision}\"");
        let settings = [&settings[..], &["--set", &precision]].concat();
        let train = |arguments: &[&str], variables: &[(&str, &str)]| {
            let _ = fs::remove_dir_all(machine.project.store());
            let output = machine.run(&[&settings, arguments].concat(), variables);
            let talk = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{talk}");
            let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
            Project::artifacts(&summary)
        };
        let two = ("CUDA_STUB_DEVICES", "2");
        let one = train(&[], &[]);
        assert_eq!(machine.calls("bytes between devices"), 0);
        assert_eq!(train(&["--ranks", "2"], &[two]), one, "{precision}");
        assert!(machine.calls("bytes between devices") > 0);
        assert_eq!(
            train(&["--ranks", "2"], &[two, ("MDLM_NCCL", "none")]),
            one,
            "{precision}"
        );
        assert_eq!(machine.calls("bytes between devices"), 0);
    }
    // More ranks than GPUs.
    let output = machine.run(&[&settings[..], &["--ranks", "2"]].concat(), &[]);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{talk}");
    assert!(talk.contains("rank 1"), "{talk}");
    // A file that is no NCCL.
    let wrong = [("CUDA_STUB_DEVICES", "2"), ("MDLM_NCCL", "/nowhere/libnccl.so.2")];
    let output = machine.run(&[&settings[..], &["--ranks", "2"]].concat(), &wrong);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(
        talk.contains("/nowhere/libnccl.so.2") && talk.contains("MDLM_NCCL"),
        "{talk}"
    );
}
