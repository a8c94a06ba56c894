//! The dimensions of a network by its tensors, and the compiled shape that has them.

use std::fmt::Write as _;

use super::config::{ConfigFacts, SETTINGS};
use crate::error::{Error, Result};
use crate::shapes::{Backbone, SHAPES, Shape};
use crate::weights::fitting::{NamedTensor, ROTARY_BUFFER, held, marks};

/// Largest V, D and C that are guessed: a hostile file may state dimensions that it has no numbers for.
const LARGEST: usize = 1 << 24;
/// Most blocks that are guessed.
const MOST_BLOCKS: usize = 1 << 10;

/// Dimensions that a checkpoint's tensors, and what stands beside them, state. What neither does is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuessedShape {
    /// The network.
    pub backbone: Backbone,
    /// V.
    pub vocabulary: usize,
    /// D.
    pub width: usize,
    /// N.
    pub blocks: usize,
    /// C; the plain transformer has none.
    pub conditioning: Option<usize>,
    /// H: by the rotary buffer, or by the configuration.
    pub heads: Option<usize>,
    /// L: by the configuration.
    pub length: Option<usize>,
}

impl GuessedShape {
    /// The dimensions of a network; nothing where the tensors are those of another kind of model.
    #[must_use]
    pub fn of(tensors: &[NamedTensor], facts: Option<&ConfigFacts>) -> Option<Self> {
        let dims = |name: &str| {
            let found = tensors.iter().find(|tensor| tensor.name == name);
            found.map(|tensor| &tensor.dims[..])
        };
        let backbone = held(tensors)?;
        let &[vocabulary, width] = dims("vocab_embed.embedding")? else {
            return None;
        };
        let block = |tensor: &NamedTensor| {
            let (number, _) = tensor.name.strip_prefix("blocks.")?.split_once('.')?;
            number.parse::<usize>().ok()
        };
        let blocks = tensors.iter().filter_map(block).max()?.checked_add(1)?;
        let conditioning = match dims("sigma_map.mlp.2.weight") {
            Some(&[conditioning, _]) => Some(conditioning),
            _ => None,
        };
        let number = |of: fn(&ConfigFacts) -> Option<u64>| usize::try_from(of(facts?)?).ok();
        let is_possible = |dimension: usize| (1..=LARGEST).contains(&dimension);
        let all = [vocabulary, width, conditioning.unwrap_or(1)];
        if blocks > MOST_BLOCKS.min(tensors.len()) || !all.into_iter().all(is_possible) {
            return None;
        }
        // The buffer has half of a head's width.
        let by_buffer = match dims(ROTARY_BUFFER) {
            Some(&[half]) if (1..=width).contains(&half) && width.is_multiple_of(2 * half) => {
                Some(width / (2 * half))
            }
            _ => None,
        };
        Some(Self {
            backbone,
            vocabulary,
            width,
            blocks,
            conditioning,
            heads: by_buffer.or_else(|| number(|facts| facts.heads)),
            length: number(|facts| facts.length),
        })
    }

    /// A shape with these dimensions, 1 for those that are not known: for the parameters alone, which L and H do not decide.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            name: "",
            vocabulary: self.vocabulary,
            length: self.length.unwrap_or(1),
            width: self.width,
            heads: self.heads.unwrap_or(1),
            blocks: self.blocks,
            conditioning: self.conditioning.unwrap_or(1),
        }
    }

    /// The compiled shapes that have all known dimensions.
    #[must_use]
    pub fn fitting(&self) -> Vec<&'static Shape> {
        let known = |known: Option<usize>, own: usize| known.is_none_or(|known| known == own);
        let is_fit = |shape: &&Shape| {
            shape.vocabulary == self.vocabulary
                && shape.width == self.width
                && shape.blocks == self.blocks
                && known(self.conditioning, shape.conditioning)
                && known(self.heads, shape.heads)
                && known(self.length, shape.length)
        };
        SHAPES.iter().filter(is_fit).collect()
    }

    /// The line that adds the shape to `src/shapes.rs`; `?` stands for what the file does not state.
    #[must_use]
    pub fn line(&self) -> String {
        let shown = |number: Option<usize>| number.map_or("?".to_owned(), |number| number.to_string());
        format!(
            "MyShape \"my-shape\" V {} L {} D {} H {} N {} C {};",
            self.vocabulary,
            shown(self.length),
            self.width,
            shown(self.heads),
            self.blocks,
            // The plain transformer does not read it; 128 is the authors'.
            self.conditioning.unwrap_or(128),
        )
    }

    /// What to do for a shape that fits.
    #[must_use]
    pub fn way_out(&self) -> String {
        let names: Vec<_> = self
            .fitting()
            .iter()
            .map(|shape| format!("`{}`", shape.name))
            .collect();
        if !names.is_empty() {
            return format!("its dimensions are those of {}", names.join(", "));
        }
        let mut way = format!(
            "no compiled shape fits: add the line `{}` to src/shapes.rs and build again",
            self.line()
        );
        if self.heads.is_none() || self.length.is_none() {
            way += "; `?` stands for what the file does not state";
        }
        way
    }

    /// The dimensions in a line: `V 50258, D 768, N 12, C 128, H 12, L 1024`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("V {}, D {}, N {}", self.vocabulary, self.width, self.blocks);
        for (letter, number) in [("C", self.conditioning), ("H", self.heads), ("L", self.length)] {
            if let Some(number) = number {
                let _ = write!(text, ", {letter} {number}");
            }
        }
        text
    }

    /// Checks the configuration against the tensors.
    ///
    /// # Errors
    /// A dimension that the configuration states is another one than the tensors have.
    pub fn check(&self, facts: &ConfigFacts) -> Result<()> {
        let file = &facts.file;
        self.check_backbone(facts)?;
        if let Some(unlike) = &facts.unlike {
            return Err(Error::input(format!("`{file}` is of another network: {unlike}")).hint(mended(file)));
        }
        for (field, stated, tensor, found) in [
            (
                "the vocabulary",
                facts.vocabulary,
                "`vocab_embed.embedding`",
                Some(self.vocabulary),
            ),
            (
                "the width",
                facts.width,
                "`vocab_embed.embedding`",
                Some(self.width),
            ),
            (
                "the number of blocks",
                facts.blocks,
                "the tensors",
                Some(self.blocks),
            ),
            (
                "the width of the conditioning",
                facts.conditioning,
                "`sigma_map.mlp.2.weight`",
                self.conditioning,
            ),
            (
                "the number of heads",
                facts.heads,
                "`rotary_emb.inv_freq`",
                self.heads,
            ),
        ] {
            if let (Some(stated), Some(found)) = (stated, found)
                && stated != found as u64
            {
                return Err(Error::input(format!(
                    "{field} is {stated} in `{file}`, but {found} by {tensor}"
                ))
                .hint(format!(
                    "`{file}` belongs to another model: bring the one that belongs to the weights"
                )));
            }
        }
        Ok(())
    }

    /// Whether what the configuration says of the network is true of the tensors.
    fn check_backbone(&self, facts: &ConfigFacts) -> Result<()> {
        let (file, own) = (&facts.file, self.backbone);
        let stated = facts
            .backbone
            .as_ref()
            .filter(|stated| !stated.fits.contains(&own));
        let causal = facts.causal.as_ref();
        let causal = causal.filter(|(_, is_causal)| *is_causal != (own == Backbone::Transformer));
        let objective = facts.objective.filter(|objective| objective.backbone() != own);
        let says = if let Some(stated) = stated {
            format!("`{}` is `{}` in `{file}`", stated.field, stated.value)
        } else if let Some((field, is_causal)) = causal {
            format!("`{field}` is {is_causal} in `{file}`")
        } else if let Some(objective) = objective {
            let (kind, backbone) = (objective.kind(), objective.backbone());
            format!("the objective is `{kind}` in `{file}`, which a {backbone} is trained for")
        } else {
            return Ok(());
        };
        let attends = match own {
            Backbone::Dit => "attends to the whole row",
            Backbone::Transformer => "has causal attention",
        };
        Err(Error::input(format!(
            "{says}, but the file holds a {own} ({}), which {attends}",
            marks(own)
        ))
        .hint(mended(file)))
    }

    /// Checks a compiled shape against what is known.
    ///
    /// # Errors
    /// A dimension of the shape is another one; the way out is the shape that fits, or the line that adds it.
    pub fn check_shape(&self, shape: &Shape) -> Result<()> {
        for (what, known, own) in [
            ("the vocabulary", Some(self.vocabulary), shape.vocabulary),
            ("the width", Some(self.width), shape.width),
            ("the number of blocks", Some(self.blocks), shape.blocks),
            (
                "the width of the conditioning",
                self.conditioning,
                shape.conditioning,
            ),
            ("the number of heads", self.heads, shape.heads),
            ("the length of rows", self.length, shape.length),
        ] {
            if let Some(known) = known
                && known != own
            {
                let message = format!(
                    "{what} is {own} in shape `{}`, but {known} in the file",
                    shape.name
                );
                return Err(Error::input(message).hint(self.way_out()));
            }
        }
        Ok(())
    }
}

/// What to do about a field that contradicts the weights: of settings within a checkpoint it cannot be corrected.
pub(super) fn mended(file: &str) -> String {
    if file == SETTINGS {
        "if the weights are right, save them alone, `torch.save(torch.load(FILE)[\"state_dict\"], OTHER)`, and state the \
         objective in the manifest"
            .to_owned()
    } else {
        format!(
            "correct the field in `{file}` if it is wrong, or bring the `{file}` that belongs to the weights"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::parameters;

    fn tensors(shape: &Shape, backbone: Backbone) -> Vec<NamedTensor> {
        let own = parameters(shape, backbone);
        own.iter()
            .map(|own| NamedTensor::of(&own.name, &own.dims, "F32"))
            .collect()
    }

    #[test]
    fn checkpoint_dimensions_are_guessed_for_every_compiled_shape() {
        for shape in SHAPES.iter() {
            for backbone in Backbone::ALL {
                let mut tensors = tensors(shape, backbone);
                let guess = GuessedShape::of(&tensors, None).unwrap();
                assert_eq!(
                    (guess.backbone, guess.heads, guess.length),
                    (backbone, None, None)
                );
                assert!(guess.fitting().contains(&shape));
                let half = shape.width / shape.heads / 2;
                tensors.push(NamedTensor::of(ROTARY_BUFFER, &[half], "F32"));
                let config = json!({ "model_length": shape.length, "n_heads": shape.heads, "vocab_size": shape.vocabulary });
                let facts = ConfigFacts::read("config.json", &config).unwrap();
                let guess = GuessedShape::of(&tensors, Some(&facts)).unwrap();
                assert_eq!(
                    (guess.heads, guess.length),
                    (Some(shape.heads), Some(shape.length))
                );
                guess.check(&facts).unwrap();
                guess.check_shape(shape).unwrap();
            }
        }
    }

    #[test]
    fn checkpoint_of_no_compiled_shape_is_named_with_the_line_to_add() {
        let other = Shape {
            name: "x",
            vocabulary: 100,
            length: 7,
            width: 48,
            heads: 3,
            blocks: 2,
            conditioning: 16,
        };
        let guess = GuessedShape::of(&tensors(&other, Backbone::Dit), None).unwrap();
        assert!(guess.fitting().is_empty());
        assert_eq!(guess.text(), "V 100, D 48, N 2, C 16");
        let way = guess.way_out();
        assert!(
            way.contains("V 100 L ? D 48 H ? N 2 C 16;") && way.contains("src/shapes.rs"),
            "{way}"
        );
        let error = guess.check_shape(SHAPES.find("nano").unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the vocabulary is 512 in shape `nano`, but 100 in the file"
        );
        let facts = ConfigFacts::read("config.json", &json!({ "hidden_dim": 64 })).unwrap();
        let error = guess.check(&facts).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the width is 64 in `config.json`, but 48 by `vocab_embed.embedding`"
        );
        assert_eq!(GuessedShape::of(&[], None), None);
    }
}
