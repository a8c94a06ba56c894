//! The diffusion transformer of arXiv 2406.07524 (after Peebles & Xie's DiT), top to bottom, typed by its shape.
//!
//! [`Arch`] is a compiled shape as types; every weight and every activation carries its dimensions, so that two
//! layers that do not fit each other do not compile. [`Dit`] is generic over the [`Backend`] and does not depend on
//! tapes, threads or devices.
//!
//! One block, on x (R, D) with c the conditioning vector (m, C), m = 1 or one per row:
//!
//! ```text
//! (shift_a, scale_a, gate_a, shift_m, scale_m, gate_m) = Linear(C, 6D)(c)
//! x ← x + gate_a · dropout(Wo · attention(Wqkv · (norm1(x) · (1 + scale_a) + shift_a)))
//! x ← x + gate_m · dropout(W2 · gelu(W1 · (norm2(x) · (1 + scale_m) + shift_m) + b1) + b2)
//! ```
//!
//! Only the wanted positions go through the final layer and what of the last block comes after its keys and values:
//! exactly what is left out is never read.
//!
//! The plain transformer ([`Backbone::Transformer`]) is the same network without c: every shift and scale is 0, every gate 1,
//! and that changes no bit, whatever the data type: x · (1 + 0) + 0 and 1 · y are exact.
//!
//! Two weights of different shape cannot take each other's place; two of the same can:
//!
//! ```
//! # use mdlm::kernels::Backend;
//! # use mdlm::model::dit::{Arch, Block};
//! fn swap<A: Arch, B: Backend>(block: &mut Block<A, B>) {
//!     std::mem::swap(&mut block.norm1, &mut block.norm2);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use mdlm::kernels::Backend;
//! # use mdlm::model::dit::{Arch, Block};
//! fn swap<A: Arch, B: Backend>(block: &mut Block<A, B>) {
//!     std::mem::swap(&mut block.attn_qkv, &mut block.attn_out);
//! }
//! ```

use dfdx::shapes::{Const, ConstDim, ConstShape};

use super::{Batch, Parameter};
use crate::error::{Error, Result};
use crate::kernels::{Backend, CachedAttention, Dropout, Pattern, TokenRows, VocabSupport};
use crate::shapes::{Backbone, Shape};
use crate::with_compiled_shapes;

/// Sinusoidal features of σ: 128 cosines, then 128 sines (the authors' `frequency_embedding_size`).
pub const TIME_FEATURES: usize = 256;

/// Longest period of the features of σ (the authors' `max_period`).
const MAX_PERIOD: f64 = 10_000.0;

/// A compiled shape as types. The letters are the crate's.
pub trait Arch: 'static {
    /// V: vocabulary, the mask token included.
    type V: ConstDim;
    /// L: tokens a row.
    type L: ConstDim;
    /// D: width of the residual stream.
    type D: ConstDim;
    /// 2D: the final layer's modulation.
    type D2: ConstDim;
    /// 3D: queries, keys and values.
    type D3: ConstDim;
    /// 6D: a block's modulation.
    type D6: ConstDim;
    /// F = 4D: the MLP's hidden width.
    type F: ConstDim;
    /// C: width of the conditioning vector.
    type C: ConstDim;
    /// H: attention heads.
    const HEADS: usize;
    /// N: blocks.
    const BLOCKS: usize;
    /// The same dimensions as data.
    const SHAPE: &'static Shape;
}

/// What can be done with any compiled shape: see [`with_arch`].
pub trait WithArch {
    /// What comes of it.
    type Output;
    /// Does it for `A`.
    fn apply<A: Arch>(self) -> Self::Output;
}

macro_rules! arches {
    ($($type:ident $name:literal V $v:literal L $l:literal D $d:literal H $h:literal N $n:literal C $c:literal;)*) => {
        $(
            #[doc = concat!("The compiled shape `", $name, "`.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $type;

            impl Arch for $type {
                type V = Const<$v>;
                type L = Const<$l>;
                type D = Const<$d>;
                type D2 = Const<{ 2 * $d }>;
                type D3 = Const<{ 3 * $d }>;
                type D6 = Const<{ 6 * $d }>;
                type F = Const<{ 4 * $d }>;
                type C = Const<$c>;
                const HEADS: usize = $h;
                const BLOCKS: usize = $n;
                const SHAPE: &'static Shape = &Shape {
                    name: $name, vocabulary: $v, length: $l, width: $d, heads: $h, blocks: $n, conditioning: $c,
                };
            }

            // Rotary positions turn pairs within a head.
            const _: () = assert!($d % (2 * $h) == 0, "2 H must divide D");
        )*

        /// Applies `generic` to the compiled shape of that name; `None` when there is none. The one place where a
        /// name becomes types.
        pub fn with_arch<W: WithArch>(name: &str, generic: W) -> Option<W::Output> {
            match name {
                $($name => Some(generic.apply::<$type>()),)*
                _ => None,
            }
        }
    };
}

with_compiled_shapes!(arches);

/// y = x · weightᵀ + bias, O outputs of I inputs.
pub struct Linear<B: Backend, I: ConstDim, O: ConstDim> {
    /// (O, I), PyTorch's order.
    pub weight: B::Param<(O, I)>,
    /// (O)
    pub bias: B::Param<(O,)>,
}

// The chunks of a block's modulation: of the attention, then of the MLP.
const SHIFT_A: usize = 0;
const SCALE_A: usize = 1;
const GATE_A: usize = 2;
const SHIFT_M: usize = 3;
const SCALE_M: usize = 4;
const GATE_M: usize = 5;

/// A block's weights.
pub struct Block<A: Arch, B: Backend> {
    /// `norm1.weight`
    pub norm1: B::Param<(A::D,)>,
    /// `attn_qkv.weight`: rows [q | k | v].
    pub attn_qkv: B::Param<(A::D3, A::D)>,
    /// `attn_out.weight`
    pub attn_out: B::Param<(A::D, A::D)>,
    /// `norm2.weight`
    pub norm2: B::Param<(A::D,)>,
    /// `mlp.0`
    pub mlp_in: Linear<B, A::D, A::F>,
    /// `mlp.2`
    pub mlp_out: Linear<B, A::F, A::D>,
    /// `adaLN_modulation`: shift, scale, gate of the attention, then of the MLP; the DiT's alone.
    pub modulation: Option<Linear<B, A::C, A::D6>>,
}

/// The time input of the DiT.
pub struct TimeInput<A: Arch, B: Backend> {
    /// `sigma_map.mlp.0`
    pub hidden: Linear<B, Const<TIME_FEATURES>, A::C>,
    /// `sigma_map.mlp.2`
    pub output: Linear<B, A::C, A::C>,
}

/// The network's weights, in the order of [`parameters`].
pub struct Dit<A: Arch, B: Backend> {
    /// `vocab_embed.embedding`
    pub embedding: B::Param<(A::V, A::D)>,
    /// `sigma_map`; the DiT's alone.
    pub time: Option<TimeInput<A, B>>,
    /// `blocks.{i}`
    pub blocks: Vec<Block<A, B>>,
    /// `output_layer.norm_final.weight`
    pub norm_final: B::Param<(A::D,)>,
    /// `output_layer.linear`
    pub output: Linear<B, A::D, A::V>,
    /// `output_layer.adaLN_modulation`: shift, scale; the DiT's alone.
    pub modulation_final: Option<Linear<B, A::C, A::D2>>,
}

/// The parameters of a shape in canonical order: the authors' names (without the `backbone.` prefix) and dimensions. The DiT
/// has 1 + 4 + 10 N + 5, the plain transformer 1 + 8 N + 3.
#[must_use]
pub fn parameters(shape: &Shape, backbone: Backbone) -> Vec<Parameter> {
    let Shape {
        vocabulary: v,
        width: d,
        conditioning: c,
        ..
    } = *shape;
    let f = shape.hidden();
    let is_dit = backbone == Backbone::Dit;
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut add = |name: String, dims: &[usize]| {
        let offset = parameters.last().map_or(0, |last| last.offset + last.len());
        parameters.push(Parameter {
            name,
            dims: dims.to_vec(),
            offset,
        });
    };
    add("vocab_embed.embedding".to_owned(), &[v, d]);
    if is_dit {
        add("sigma_map.mlp.0.weight".to_owned(), &[c, TIME_FEATURES]);
        add("sigma_map.mlp.0.bias".to_owned(), &[c]);
        add("sigma_map.mlp.2.weight".to_owned(), &[c, c]);
        add("sigma_map.mlp.2.bias".to_owned(), &[c]);
    }
    for i in 0..shape.blocks {
        let mut add = |name: &str, dims: &[usize]| add(format!("blocks.{i}.{name}"), dims);
        add("norm1.weight", &[d]);
        add("attn_qkv.weight", &[3 * d, d]);
        add("attn_out.weight", &[d, d]);
        add("norm2.weight", &[d]);
        add("mlp.0.weight", &[f, d]);
        add("mlp.0.bias", &[f]);
        add("mlp.2.weight", &[d, f]);
        add("mlp.2.bias", &[d]);
        if is_dit {
            add("adaLN_modulation.weight", &[6 * d, c]);
            add("adaLN_modulation.bias", &[6 * d]);
        }
    }
    add("output_layer.norm_final.weight".to_owned(), &[d]);
    add("output_layer.linear.weight".to_owned(), &[v, d]);
    add("output_layer.linear.bias".to_owned(), &[v]);
    if is_dit {
        add("output_layer.adaLN_modulation.weight".to_owned(), &[2 * d, c]);
        add("output_layer.adaLN_modulation.bias".to_owned(), &[2 * d]);
    }
    parameters
}

/// Hands out weights from the flat order, one after the other.
struct WeightSource<'a, B> {
    backend: &'a B,
    parameters: &'a [Parameter],
    values: &'a [f32],
}

impl<B: Backend> WeightSource<'_, B> {
    fn next<S: ConstShape>(&mut self) -> Result<B::Param<S>> {
        let dims = S::default().concrete();
        match self.parameters.split_first() {
            Some((parameter, rest)) if dims.as_ref() == parameter.dims && self.values.len() >= S::NUMEL => {
                let (values, left) = self.values.split_at(S::NUMEL);
                (self.parameters, self.values) = (rest, left);
                self.backend.param(values)
            }
            parameter => Err(Error::internal(format!(
                "the flat order of weights has {:?} with {} values left where {dims:?} belongs",
                parameter.map(|(parameter, _)| parameter),
                self.values.len()
            ))),
        }
    }

    fn linear<I: ConstDim, O: ConstDim>(&mut self) -> Result<Linear<B, I, O>> {
        Ok(Linear {
            weight: self.next()?,
            bias: self.next()?,
        })
    }

    /// A linear layer that the DiT alone has.
    fn of_dit<I: ConstDim, O: ConstDim>(&mut self, backbone: Backbone) -> Result<Option<Linear<B, I, O>>> {
        match backbone {
            Backbone::Dit => self.linear().map(Some),
            Backbone::Transformer => Ok(None),
        }
    }
}

/// The modulation that a linear layer makes of c.
fn modulated<B: Backend, C: ConstDim, M: ConstDim>(
    b: &B,
    c: &B::Act<(usize, C)>,
    linear: Option<&Linear<B, C, M>>,
) -> Result<B::Act<(usize, M)>> {
    let linear = linear.ok_or_else(|| Error::internal("a time input without a modulation"))?;
    b.linear(c, &linear.weight, Some(&linear.bias))
}

/// What modulates the blocks and the final layer.
enum Conditioning<A: Arch, B: Backend> {
    /// c, a row for each σ: a linear layer of each block makes its modulation.
    Vector(B::Act<(usize, A::C)>),
    /// A modulation that changes nothing, for every block the same.
    Neutral(B::Act<(usize, A::D6)>),
}

#[expect(
    clippy::missing_errors_doc,
    reason = "each fails as the backend's operations do: when memory runs out"
)]
impl<A: Arch, B: Backend> Dit<A, B> {
    /// The network with these weights, in the order of [`parameters`].
    pub fn new(backend: &B, backbone: Backbone, values: &[f32]) -> Result<Self> {
        let parameters = parameters(A::SHAPE, backbone);
        let mut from = WeightSource {
            backend,
            parameters: &parameters,
            values,
        };
        // Fields are filled in the order in which they are written: the canonical one.
        let dit = Self {
            embedding: from.next()?,
            time: match backbone {
                Backbone::Dit => Some(TimeInput {
                    hidden: from.linear()?,
                    output: from.linear()?,
                }),
                Backbone::Transformer => None,
            },
            blocks: (0..A::BLOCKS)
                .map(|_| Block::new(&mut from, backbone))
                .collect::<Result<_>>()?,
            norm_final: from.next()?,
            output: from.linear()?,
            modulation_final: from.of_dit(backbone)?,
        };
        if from.parameters.is_empty() && from.values.is_empty() {
            return Ok(dit);
        }
        Err(Error::internal(format!(
            "{} weights are left over",
            from.values.len()
        )))
    }

    /// The batch's loss: the scalar Σ weights · loss and the loss of each position, in nats. `batch.positions` is not empty.
    #[expect(clippy::type_complexity, reason = "as the backend's")]
    pub fn nll(
        &self,
        b: &B,
        batch: &Batch<'_>,
        support: VocabSupport,
    ) -> Result<(B::Act<()>, B::Act<(usize,)>)> {
        let tokens = b.tokens(batch.tokens)?;
        let (pattern, dropout) = (batch.pattern, batch.dropout);
        let h = self.hidden(b, &tokens, batch.sigma, batch.positions, pattern, dropout)?;
        let (w, bias) = (&self.output.weight, &self.output.bias);
        b.readout(&h, w, bias, &batch.readout(support))
    }

    /// Logits (n, V) at the wanted positions.
    pub fn logits(
        &self,
        b: &B,
        tokens: &B::Tokens,
        sigma: &[f32],
        positions: &[u32],
        pattern: Pattern,
    ) -> Result<B::Act<(usize, A::V)>> {
        let h = self.hidden(b, tokens, sigma, positions, pattern, None)?;
        b.linear(&h, &self.output.weight, Some(&self.output.bias))
    }

    /// c (m, C) = silu(W2 · silu(W1 · features(σ) + b1) + b2), one row per σ; without a time input, shift 0, scale 0 and
    /// gate 1, twice.
    fn conditioning(&self, b: &B, sigma: &[f32]) -> Result<Conditioning<A, B>> {
        let Some(time) = &self.time else {
            // As many rows as a conditioning vector has: backends share out their work by them.
            let mut neutral = vec![0.0; sigma.len() * A::D6::SIZE];
            for (chunk, values) in neutral.chunks_exact_mut(A::D::SIZE).enumerate() {
                if [GATE_A, GATE_M].contains(&(chunk % 6)) {
                    values.fill(1.0);
                }
            }
            let shape = (sigma.len(), A::D6::default());
            return Ok(Conditioning::Neutral(b.input(shape, &neutral)?));
        };
        let features = b.input((sigma.len(), Const::<TIME_FEATURES>), &time_features(sigma))?;
        let hidden = b.linear(&features, &time.hidden.weight, Some(&time.hidden.bias))?;
        let c = b.linear(&b.silu(&hidden)?, &time.output.weight, Some(&time.output.bias))?;
        Ok(Conditioning::Vector(b.silu(&c)?))
    }

    /// h (n, D): the final layer's normalized input at the wanted positions: embedding, the blocks, the last of them for
    /// the wanted positions alone. An activation is let go as soon as its last reader has run.
    pub fn hidden(
        &self,
        b: &B,
        tokens: &B::Tokens,
        sigma: &[f32],
        positions: &[u32],
        pattern: Pattern,
        dropout: Option<Dropout>,
    ) -> Result<B::Act<(usize, A::D)>> {
        let c = self.conditioning(b, sigma)?;
        let all = TokenRows::all(A::L::SIZE);
        let wanted = TokenRows::listed(A::L::SIZE, positions);
        let mut x = b.embed(&self.embedding, tokens)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let sites = [2 * i as u32, 2 * i as u32 + 1];
            let passed = Passed {
                held: all,
                kept: (i + 1 == A::BLOCKS).then_some((positions, wanted)),
            };
            x = block.forward(
                b,
                &x,
                &c,
                passed,
                |q, kv, rows| b.attention(q, kv, A::HEADS, rows, pattern),
                sites.map(|site| dropout.map(|dropout| (dropout, site))),
            )?;
        }
        self.normalized(b, &x, &c, wanted)
    }

    /// The final norm of the token rows of `rows`.
    fn normalized(
        &self,
        b: &B,
        x: &B::Act<(usize, A::D)>,
        c: &Conditioning<A, B>,
        rows: TokenRows<'_>,
    ) -> Result<B::Act<(usize, A::D)>> {
        match c {
            Conditioning::Vector(c) => {
                let modulation = modulated(b, c, self.modulation_final.as_ref())?;
                b.modulated_norm(x, &self.norm_final, &modulation, 0, 1, rows)
            }
            Conditioning::Neutral(neutral) => {
                b.modulated_norm(x, &self.norm_final, neutral, SHIFT_A, SCALE_A, rows)
            }
        }
    }
}

/// Reading from left to right: each position attends to those before it, whose keys and values are kept.
#[expect(
    clippy::missing_errors_doc,
    reason = "stated at each, or as the backend's operations do: when memory runs out"
)]
impl<A: Arch, B: Backend + CachedAttention> Dit<A, B> {
    /// Room for the keys and values of `rows` rows, for each block.
    pub fn cache(&self, b: &B, rows: usize) -> Result<Vec<B::Cache>> {
        (0..A::BLOCKS)
            .map(|_| b.cache(rows, A::L::SIZE, A::HEADS, A::D::SIZE))
            .collect()
    }

    /// Logits (n, V) under [`Pattern::Causal`] from new tokens alone: what [`Dit::logits`] computes from whole rows.
    ///
    /// `places` (m) are the tokens' in the cache, row · L + position, ascending; `wanted` (n), ascending, are those among the
    /// m whose logits are asked for. The keys and values of the new tokens are put into the cache. Those of the positions
    /// before them have to be there, unless they are new themselves.
    ///
    /// # Errors
    /// An internal one for a network with a time input: keys that were computed at another σ are not this step's.
    pub fn step(
        &self,
        b: &B,
        tokens: &B::Tokens,
        places: &[u32],
        wanted: &[u32],
        cache: &mut [B::Cache],
    ) -> Result<B::Act<(usize, A::V)>> {
        if self.time.is_some() || cache.len() != self.blocks.len() {
            return Err(Error::internal(format!(
                "kept keys of {} blocks in a network of {}, with a time input: {}",
                cache.len(),
                self.blocks.len(),
                self.time.is_some()
            )));
        }
        let c = self.conditioning(b, &[0.0])?;
        let held = TokenRows::listed(A::L::SIZE, places);
        let places_of_wanted: Vec<u32> = wanted.iter().map(|&i| places[i as usize]).collect();
        let kept = TokenRows::listed(A::L::SIZE, &places_of_wanted);
        let mut x = b.embed(&self.embedding, tokens)?;
        for (i, (block, cache)) in self.blocks.iter().zip(cache).enumerate() {
            let is_cut = i + 1 == A::BLOCKS && wanted.len() < places.len();
            let passed = Passed {
                held,
                kept: is_cut.then_some((wanted, kept)),
            };
            let attend = |q: &B::Act<(usize, A::D)>, kv: &B::Act<(usize, A::D2)>, rows: TokenRows<'_>| {
                b.keep(kv, held, cache)?;
                b.cached_attention(q, rows, cache)
            };
            x = block.forward(b, &x, &c, passed, attend, [None; 2])?;
        }
        let h = self.normalized(b, &x, &c, kept)?;
        b.linear(&h, &self.output.weight, Some(&self.output.bias))
    }
}

/// The token rows that a block reads, and those that it returns.
#[derive(Clone, Copy)]
struct Passed<'a> {
    /// Of each row of x, which token row it is.
    held: TokenRows<'a>,
    /// The rows of x that are returned, and which token rows these are; absent: all.
    kept: Option<(&'a [u32], TokenRows<'a>)>,
}

impl<A: Arch, B: Backend> Block<A, B> {
    fn new(from: &mut WeightSource<'_, B>, backbone: Backbone) -> Result<Self> {
        Ok(Self {
            norm1: from.next()?,
            attn_qkv: from.next()?,
            attn_out: from.next()?,
            norm2: from.next()?,
            mlp_in: from.linear()?,
            mlp_out: from.linear()?,
            modulation: from.of_dit(backbone)?,
        })
    }

    /// x (R, D) → (n, D); the equations stand at the head of this file. Rows that are not returned give keys and values, and
    /// nothing else is computed for them: nothing else of theirs is ever read. `attend` is the attention of queries (n, D)
    /// of the given token rows, after keys and values (R, 2D).
    fn forward(
        &self,
        b: &B,
        x: &B::Act<(usize, A::D)>,
        c: &Conditioning<A, B>,
        passed: Passed<'_>,
        attend: impl FnOnce(
            &B::Act<(usize, A::D)>,
            &B::Act<(usize, A::D2)>,
            TokenRows<'_>,
        ) -> Result<B::Act<(usize, A::D)>>,
        [drop_a, drop_m]: [Option<(Dropout, u32)>; 2],
    ) -> Result<B::Act<(usize, A::D)>> {
        let modulation = match c {
            Conditioning::Vector(c) => modulated(b, c, self.modulation.as_ref())?,
            Conditioning::Neutral(neutral) => neutral.clone(),
        };
        let d = A::D::SIZE;

        let Passed { held, kept } = passed;
        let h = b.modulated_norm(x, &self.norm1, &modulation, SHIFT_A, SCALE_A, held)?;
        let kv = b.linear_part::<_, _, A::D2>(&h, &self.attn_qkv, d)?;
        let (x, h, rows) = match kept {
            None => (x.clone(), h, held),
            Some((listed, rows)) => (b.gather(x, listed)?, b.gather(&h, listed)?, rows),
        };
        let q = b.linear_part::<_, _, A::D>(&h, &self.attn_qkv, 0)?;
        drop(h);
        let a = attend(&q, &kv, rows)?;
        drop((q, kv));
        let a = b.linear(&a, &self.attn_out, None)?;
        let x = b.gated_residual(&x, &a, &modulation, GATE_A, drop_a, rows)?;
        drop(a);

        let h = b.modulated_norm(&x, &self.norm2, &modulation, SHIFT_M, SCALE_M, rows)?;
        let u = b.linear_gelu(&h, &self.mlp_in.weight, &self.mlp_in.bias)?;
        drop(h);
        let y = b.linear(&u, &self.mlp_out.weight, Some(&self.mlp_out.bias))?;
        drop(u);
        b.gated_residual(&x, &y, &modulation, GATE_M, drop_m, rows)
    }
}

/// Sinusoidal features of σ: cos(σ·f(j)) for j in 0..128, then sin(σ·f(j)), f(j) = 10000^(−j / 128).
/// Computed in f64: the product loses nothing before the cosine.
fn time_features(sigma: &[f32]) -> Vec<f32> {
    let half = TIME_FEATURES / 2;
    let frequency = |j: usize| (-MAX_PERIOD.ln() * j as f64 / half as f64).exp();
    let angles = |sigma: f32| (0..half).map(move |j| f64::from(sigma) * frequency(j));
    sigma
        .iter()
        .flat_map(|&sigma| angles(sigma).map(f64::cos).chain(angles(sigma).map(f64::sin)))
        .map(|feature| feature as f32)
        .collect()
}
