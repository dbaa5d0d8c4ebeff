//! A training that is stopped goes on from its checkpoint to the same bytes.

use shiftwise::training::{Epoch, Labelled, Labels, Observer, Plan, Progress, checkpoint, fit};
use shiftwise_formats::{LoadOptions, load, training_bytes};
use shiftwise_graph::eval::Samples as _;
use shiftwise_quant::qat::prepare;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::command::{Folder, data};
use shiftwise_train::conv_norm::Correction;
use shiftwise_train::fit::{Made, Watch};
use shiftwise_train::loss::Loss;
use shiftwise_train::optim::{Optimizer, Settings};
use shiftwise_train::schedule::Schedule;
use shiftwise_train::trainer::{Goal, Options, Trainer};

/// Stops behind a step, as if the process were killed.
struct Killed<'a> {
    own: Observer<'a>,
    after: u64,
}

impl Watch for Killed<'_> {
    fn step(&mut self, made: &Made, trainer: &Trainer) -> Result<bool, shiftwise_graph::error::Error> {
        Ok(self.own.step(made, trainer)? && trainer.steps() < self.after)
    }
    fn epoch(&mut self, epoch: u64, trainer: &Trainer) -> Result<bool, shiftwise_graph::error::Error> {
        self.own.epoch(epoch, trainer)
    }
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bytes() {
    let folder = Folder::new("train-resume");
    let graph = load(&data().join("digits_lenet.h5"), &LoadOptions::default()).unwrap();
    let strategy = Strategy::built_in("pof2s_tqt").unwrap();
    let shape = [&[40], graph.node(graph.inputs[0]).shape.as_slice()].concat();
    let values = (0..shape.iter().product::<usize>()).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect();
    let inputs: Vec<Tensor> = vec![Tensor::new(shape, values).unwrap()];
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs.batch(0, 1).unwrap().len(), 1);
    let labels = vec![Some(Labels::Classes((0..40).map(|i| i % 10).collect()))];
    let examples = Labelled { inputs: &inputs, labels, teacher: None };
    let goals = vec![Loss::find("sparse_categorical_crossentropy").map(|loss| Goal { loss, weight: 1.0 })];
    let options = Options {
        optimizer: Optimizer::find("adam").unwrap(),
        settings: Settings { rate: 1e-3, momentum: 0.0, weight_decay: None },
        threshold_rate: None,
        correction: Correction::Vendor,
        goals: goals.clone(),
        seed: 3,
    };
    let plan = Plan {
        epochs: 2,
        batch_size: 8,
        steps_per_epoch: None,
        shuffle: true,
        schedule: Schedule::parse("cosine").unwrap(),
        rate: 1e-3,
        threshold_rate: None,
        augment: Vec::new(),
        seed: 3,
    };
    let dir = folder.path.join("checkpoint");
    let about = serde_json::json!({ "a": 1 });
    let untrained = prepare(graph, &strategy).unwrap().0;
    let write = |trainer: &Trainer, progress: &Progress| checkpoint::write(&dir, trainer, progress, &about);
    let (step, epoch) = (|_: &Made| {}, |_: &Epoch| {});
    let observer = |progress: Progress| Observer {
        progress,
        goals: goals.clone(),
        validation: Some(&examples),
        metric: None,
        patience: None,
        checkpoint_every: Some(3),
        checkpoint: &write,
        show_step: &step,
        show_epoch: &epoch,
    };
    let bytes = |trainer: &Trainer| training_bytes(trainer.qat(), "qat.h5".as_ref()).unwrap();
    let mut whole = Trainer::new(untrained.clone(), options.clone());
    let mut watch = observer(Progress::default());
    fit(&mut whole, &plan, &examples, &mut watch).unwrap();
    let history = watch.progress.history;
    // Killed within the second epoch, behind its checkpoint, and within the first.
    for after in [8, 4] {
        let _ = std::fs::remove_dir_all(&dir);
        let mut killed = Trainer::new(untrained.clone(), options.clone());
        fit(&mut killed, &plan, &examples, &mut Killed { own: observer(Progress::default()), after }).unwrap();
        let found = checkpoint::read(&dir, &about, &LoadOptions::default()).unwrap().unwrap();
        assert!(found.steps <= after && found.steps > 0);
        let mut again = Trainer::new(found.qat, options.clone());
        again.resume(found.steps, found.state).unwrap();
        let mut watch = observer(found.progress);
        fit(&mut again, &plan, &examples, &mut watch).unwrap();
        assert!(bytes(&again) == bytes(&whole), "killed behind step {after}");
        assert_eq!(watch.progress.history, history);
    }
    let other = checkpoint::read(&dir, &serde_json::json!({ "a": 2 }), &LoadOptions::default());
    assert!(other.unwrap_err().to_string().contains("other options"));
}
