//! Weights on disk: the flat order under the authors' tensor names, in safetensors.
//!
//! A tensor of the network is `backbone.NAME` with the names of the authors' release, weights [out, in]. A file may
//! hold several sets of values for the same parameters, *arenas*: the nameless one holds the weights, another one,
//! such as `ema`, is `ema/backbone.NAME`. Any safetensors reader of the authors' names reads such a file; ours reads
//! theirs, with or without the prefix. [`import`] reads whole checkpoints of other programs.

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::{Parameter, parameters, total};
use crate::shapes::{Backbone, Shape};
pub use fitting::ROTARY_BUFFER;
use fitting::check;
use tensors::{Reader, Writer};

mod fitting;
pub mod import;
pub mod tensors;
pub mod torch;

/// Prefix of the network's tensors in the authors' release.
pub const PREFIX: &str = "backbone.";

/// Base of the rotary angles (arXiv 2104.09864).
const ROTARY_BASE: f64 = 10_000.0;

/// The buffer of rotary frequencies that the authors' files have beside the weights, [D / 2H]: 10000^(-i / half), bit for bit as
/// their code has it, in f32: 1 / 10000^(2i / 2 half) with each of the three operations rounded (`models/dit.py`, `Rotary`). It
/// follows from the shape, and mdlm's angles are computed without it.
#[must_use]
pub fn rotary_buffer(shape: &Shape) -> Vec<f32> {
    let width = shape.width / shape.heads;
    let frequency = |i: usize| {
        let exponent = (2 * i) as f32 / width as f32;
        1.0 / ROTARY_BASE.powf(f64::from(exponent)) as f32
    };
    (0..width / 2).map(frequency).collect()
}

/// The file name of a tensor of an arena.
fn file_name(arena: &str, parameter: &Parameter) -> String {
    let slash = if arena.is_empty() { "" } else { "/" };
    format!("{arena}{slash}{PREFIX}{}", parameter.name)
}

/// Writes arenas (their names; that of the weights is empty) to a safetensors file, with `metadata` in its header: `fill` is
/// asked for the values of each, by its number, in the flat order. Atomic and durable: readers see the file that was there or
/// the whole new one.
///
/// # Errors
/// Environment error: the file cannot be written; the errors of `fill`.
pub fn write(
    path: &Path,
    parameters: &[Parameter],
    arenas: &[&str],
    metadata: &[(&str, &str)],
    fill: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let tensors: Vec<_> = arenas
        .iter()
        .flat_map(|arena| {
            parameters
                .iter()
                .map(|parameter| (file_name(arena, parameter), parameter.dims.clone()))
        })
        .collect();
    // `format` is what the libraries around PyTorch look for before they load a file.
    let metadata: Vec<_> = [("format", "pt")]
        .into_iter()
        .chain(metadata.iter().copied())
        .collect();
    let mut writer = Writer::create(path, &tensors, &metadata)?;
    let mut values = vec![0.0; total(parameters)];
    for which in 0..arenas.len() {
        fill(which, &mut values)?;
        writer.append(&values)?;
    }
    writer.finish()
}

/// Reads an arena of a file that [`write`] has written for these parameters into the flat order.
///
/// # Errors
/// The file is damaged or is one of other parameters: of the environment, as it is one of ours.
pub fn read_arena(path: &Path, parameters: &[Parameter], arena: &str) -> Result<Vec<f32>> {
    let mut reader = Reader::open(path)?;
    let mut values = vec![0.0; total(parameters)];
    for own in parameters {
        let name = file_name(arena, own);
        if reader.info(&name).is_none_or(|info| info.shape != own.dims) {
            return Err(Error::environment(format!(
                "`{}` has no tensor `{name}` {:?}",
                path.display(),
                own.dims
            )));
        }
        reader.floats(&name, 0, &mut values[own.range()])?;
    }
    Ok(values)
}

/// A checkpoint whose header has been read.
#[derive(Debug)]
pub struct Checkpoint {
    reader: Reader,
    described: String,
}

impl Checkpoint {
    /// Opens a safetensors file.
    ///
    /// # Errors
    /// Input errors: no such file, or no whole safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            reader: Reader::open(path)?,
            described: format!("`{}`", path.display()),
        })
    }

    /// An entry of the header's metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.reader.metadata(key)
    }

    /// Reads an arena into the flat order of the shape's backbone. The weights' names (the nameless arena) may lack the prefix.
    ///
    /// # Errors
    /// Input error: it says if the file holds the other backbone, and lists every other tensor that is missing, superfluous, of
    /// other dimensions or of a type without floating-point numbers.
    pub fn read(&mut self, shape: &Shape, backbone: Backbone, arena: &str) -> Result<Vec<f32>> {
        let tensors = self.reader.arenas().shift_remove(arena).unwrap_or_default();
        let what = if arena.is_empty() {
            "weights".to_owned()
        } else {
            format!("arena `{arena}`")
        };
        check((&*self.described, &*what), shape, backbone, &tensors)
            .map_err(|error| error.hint("`mdlm shapes` lists the compiled shapes"))?;
        let parameters = parameters(shape, backbone);
        let mut values = vec![0.0; total(&parameters)];
        for parameter in &parameters {
            // Present: it is not a fault.
            let own = tensors.iter().find(|tensor| tensor.name == parameter.name);
            let own = own.ok_or_else(|| Error::internal(format!("`{}` got lost", parameter.name)))?;
            self.reader
                .floats(&own.stored, 0, &mut values[parameter.range()])?;
        }
        Ok(values)
    }
}

/// Reads the weights of a bare file: [`Checkpoint::read`] of the nameless arena.
///
/// # Errors
/// The errors of [`Checkpoint::open`] and [`Checkpoint::read`].
pub fn read(path: &Path, shape: &Shape, backbone: Backbone) -> Result<Vec<f32>> {
    Checkpoint::open(path)?.read(shape, backbone, "")
}

/// An f64 rounded to the nearest f32.
///
/// # Errors
/// Input error: it is finite and beyond f32; the message names the element's `place` in its tensor.
fn rounded(value: f64, place: usize) -> Result<f32> {
    let float = value as f32;
    if float.is_infinite() && value.is_finite() {
        return Err(Error::input(format!(
            "its element {place} is {value:e}, beyond the largest f32, {:e}",
            f32::MAX
        ))
        .hint("the values are not those of a trained model: look at them with PyTorch"));
    }
    Ok(float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;
    use proptest::prelude::*;
    use safetensors::Dtype;
    use std::collections::BTreeMap;
    use std::fs;

    fn nano() -> &'static Shape {
        SHAPES.find("nano").unwrap()
    }

    fn elements() -> usize {
        total(&parameters(nano(), Backbone::Dit))
    }

    /// A file of f32 tensors; `change` edits the list of (name, dimensions) of nano's weights first.
    fn file_with(folder: &Path, change: impl FnOnce(&mut Vec<(String, Vec<usize>)>)) -> std::path::PathBuf {
        let path = folder.join("weights.safetensors");
        let mut tensors: Vec<_> = parameters(nano(), Backbone::Dit)
            .into_iter()
            .map(|own| (format!("{PREFIX}{}", own.name), own.dims))
            .collect();
        change(&mut tensors);
        let mut writer = Writer::create(&path, &tensors, &[]).unwrap();
        for (_, dims) in &tensors {
            writer.append(&vec![0.5; dims.iter().product()]).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn refused(path: &Path) -> String {
        let error = read(path, nano(), Backbone::Dit).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Input);
        let text = error.to_string().replace(&path.display().to_string(), "FILE");
        format!("{text}\nhint: {}", error.hint_text().unwrap_or_default())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn arenas_and_metadata_are_read_back_bit_by_bit(seed: u32, state in "\\PC{0,40}") {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.safetensors");
            // Any bits: NaNs and infinities too.
            let bits = |salt: u32| -> Vec<f32> {
                (0..elements() as u32).map(|i| f32::from_bits((i ^ salt).wrapping_mul(2_654_435_761))).collect()
            };
            let (weights, ema) = (bits(seed), bits(!seed));
            let write = || {
                let fill = &mut |which: usize, values: &mut [f32]| {
                    values.copy_from_slice([&weights, &ema][which]);
                    Ok(())
                };
                write(&path, &parameters(nano(), Backbone::Dit), &["", "ema"], &[("state", &state)], fill).unwrap();
            };
            write();
            let bytes = fs::read(&path).unwrap();
            let mut checkpoint = Checkpoint::open(&path).unwrap();
            for (arena, values) in [("ema", &ema), ("", &weights)] {
                let found = checkpoint.read(nano(), Backbone::Dit, arena).unwrap();
                prop_assert!(found.iter().map(|v| v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
            }
            prop_assert_eq!(checkpoint.metadata("state"), Some(&*state));
            prop_assert!(checkpoint.read(nano(), Backbone::Dit, "moments").is_err());
            let found = read_arena(&path, &parameters(nano(), Backbone::Dit), "ema").unwrap();
            prop_assert!(found.iter().map(|v| v.to_bits()).eq(ema.iter().map(|v| v.to_bits())));
            prop_assert!(read_arena(&path, &parameters(nano(), Backbone::Dit), "moments").is_err());
            // The same content gives the same bytes, and the file's folder holds the file alone.
            write();
            prop_assert!(fs::read(&path).unwrap() == bytes);
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }

        /// Cut anywhere, or with a byte changed anywhere in its header: an error or the file, never a panic.
        #[test]
        fn damaged_files_are_refused(cut in 0usize..20_000, at in 0usize..3000, byte: u8) {
            let folder = tempfile::tempdir().unwrap();
            let path = file_with(folder.path(), |_| {});
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..cut]).unwrap();
            prop_assert!(Checkpoint::open(&path).is_err());
            let mut changed = whole.clone();
            changed[at] = byte;
            fs::write(&path, &changed).unwrap();
            let _ = read(&path, nano(), Backbone::Dit);
        }
    }

    /// The library's own writer, another order, no prefix, 16-bit types and the authors' buffer.
    #[test]
    fn files_of_other_programs_are_read_and_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theirs.safetensors");
        let values: Vec<f32> = (0..elements()).map(|i| (i % 256) as f32 / 128.0 - 1.0).collect(); // exact in bf16
        let mut owned: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
        for (i, own) in parameters(nano(), Backbone::Dit).into_iter().enumerate() {
            let values = values[own.offset..][..own.len()].iter();
            let (dtype, bytes): (_, Vec<u8>) = match i % 3 {
                0 => (Dtype::F32, values.flat_map(|v| v.to_le_bytes()).collect()),
                1 => (
                    Dtype::F16,
                    values
                        .flat_map(|&v| half::f16::from_f32(v).to_le_bytes())
                        .collect(),
                ),
                _ => (
                    Dtype::BF16,
                    values
                        .flat_map(|&v| half::bf16::from_f32(v).to_le_bytes())
                        .collect(),
                ),
            };
            owned.insert(own.name, (dtype, own.dims, bytes));
        }
        let buffer = fitting::ROTARY_BUFFER.to_owned();
        owned.insert(buffer, (Dtype::F32, vec![16], vec![0; 64]));
        let views = owned.iter().map(|(name, (dtype, dims, bytes))| {
            (
                name,
                safetensors::tensor::TensorView::new(*dtype, dims.clone(), bytes).unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, &path).unwrap();
        assert_eq!(read(&path, nano(), Backbone::Dit).unwrap(), values);
    }

    #[test]
    fn error_lists_every_fault_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_with(folder.path(), |tensors| {
            tensors.remove(3);
            tensors[0].1 = vec![64, 512];
            tensors.push(("lm_head.weight".to_owned(), vec![2]));
            tensors.push(("output_layer.linear.bias".to_owned(), vec![512]));
            tensors.push(("ema/backbone.of.another.arena".to_owned(), vec![1]));
        });
        insta::assert_snapshot!(refused(&path), @r"
        `FILE`: its weights do not fit shape `nano`:
          `backbone.vocab_embed.embedding` is [64, 512], expected [512, 64]
          `sigma_map.mlp.2.weight` [32, 32] is missing
          `output_layer.linear.bias` is present both with the prefix and without it
          `lm_head.weight` is not a tensor of the network
        hint: `mdlm shapes` lists the compiled shapes
        ");
        let path = file_with(folder.path(), |tensors| {
            *tensors = parameters(SHAPES.find("tiny").unwrap(), Backbone::Dit)
                .into_iter()
                .map(|own| (own.name, own.dims))
                .collect();
        });
        let text = refused(&path);
        assert!(text.ends_with("\nhint: they fit shape `tiny`"), "{text}");
        assert!(text.contains("\n  and 30 more"), "{text}");
    }

    /// Each backbone's file comes back as what it is, and is refused as the other.
    #[test]
    fn file_of_the_other_backbone_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let write_of = |backbone, shape: &Shape| {
            let parameters = parameters(shape, backbone);
            let values: Vec<f32> = (0..total(&parameters)).map(|i| i as f32).collect();
            let fill = &mut |_: usize, into: &mut [f32]| {
                into.copy_from_slice(&values);
                Ok(())
            };
            write(&path, &parameters, &[""], &[], fill).unwrap();
            assert!(read(&path, shape, backbone).unwrap() == values);
        };
        let refused = |backbone| {
            let error = read(&path, nano(), backbone).unwrap_err();
            let text = error.to_string().replace(&path.display().to_string(), "FILE");
            format!("{text}\nhint: {}", error.hint_text().unwrap_or_default())
        };
        write_of(Backbone::Transformer, nano());
        insta::assert_snapshot!(refused(Backbone::Dit), @r"
        `FILE`: its weights do not fit shape `nano`:
          the file holds a plain transformer (it has neither `sigma_map` nor `adaLN_modulation`), expected a DiT
        hint: they fit a plain transformer of shape `nano`
        ");
        write_of(Backbone::Dit, nano());
        insta::assert_snapshot!(refused(Backbone::Transformer), @r"
        `FILE`: its weights do not fit shape `nano`:
          the file holds a DiT (it has `sigma_map` and `adaLN_modulation`), expected a plain transformer
        hint: they fit a DiT of shape `nano`
        ");
        write_of(Backbone::Transformer, SHAPES.find("tiny").unwrap());
        let text = refused(Backbone::Dit);
        assert!(
            text.ends_with("\nhint: they fit a plain transformer of shape `tiny`"),
            "{text}"
        );
        assert!(
            text.contains("`backbone.vocab_embed.embedding` is [1024, 128], expected [512, 64]"),
            "{text}"
        );
    }

    #[test]
    fn hostile_headers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hostile.safetensors");
        let with_header = |header: &str, data: usize| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.resize(bytes.len() + data, 0);
            fs::write(&path, bytes).unwrap();
            refused(&path).lines().next().unwrap_or_default().to_owned()
        };
        let cases = [
            with_header("", 0),
            with_header(&"[".repeat(100_000), 0),
            with_header(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,80000000]}}"#,
                8,
            ),
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
            with_header(
                r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#,
                8,
            ),
            with_header(r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8),
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4),
            with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9),
            with_header(r#"{"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        ];
        insta::assert_snapshot!(cases.join("\n"), @r"
        read `FILE`: not a safetensors file: header: EOF while parsing a value at line 1 column 0
        read `FILE`: not a safetensors file: header: invalid type: sequence, expected struct HashMetadata at line 1 column 0
        read `FILE`: not a safetensors file: header: invalid shape, data type, or offset for tensor
        read `FILE`: not a safetensors file: header: invalid offset for tensor `a`
        read `FILE`: not a safetensors file: header: overflow computing buffer size from shape and/or element type
        read `FILE`: not a safetensors file: header: unknown variant `F33`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 54
        read `FILE`: truncated: 66 bytes where the header says 70
        read `FILE`: ends with bytes that do not belong to a tensor: 71 bytes where the header says 70
        `FILE`: its weights do not fit shape `nano`:
        ");
        fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
        assert!(
            refused(&path)
                .starts_with("read `FILE`: not a safetensors file: a header of 18446744073709551615 bytes")
        );
        assert!(
            read(folder.path(), nano(), Backbone::Dit)
                .unwrap_err()
                .to_string()
                .contains("not a file")
        );
    }

    #[test]
    fn unfinished_file_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut writer = Writer::create(&path, &[("a".to_owned(), vec![2])], &[]).unwrap();
        writer.append(&[1.0]).unwrap();
        assert!(writer.append(&[1.0, 2.0]).is_err());
        assert!(writer.finish().is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = folder.path().join("no/such/folder/a.safetensors");
        let error = Writer::create(&missing, &[], &[]).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Environment);
    }
}
