import './note.js'

document.querySelector('h1').textContent = 'From the sandbox'
